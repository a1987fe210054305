"""Weights by which the steps of a task's demonstrations are drawn in training."""
