"""Weights by which tasks are drawn in training."""
