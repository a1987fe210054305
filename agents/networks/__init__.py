"""Networks that take images and score actions."""
