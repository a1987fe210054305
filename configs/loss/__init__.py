"""Losses beside an agent's own."""
