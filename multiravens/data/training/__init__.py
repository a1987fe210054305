"""Demonstrations as training draws them."""
