"""Acting: from a network's scores to an agent in an environment or on a robot."""
