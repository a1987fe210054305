"""Hydra configuration: values and choices, one group a constructor."""
