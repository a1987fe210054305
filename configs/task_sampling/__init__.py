"""How often each task is drawn in training."""
