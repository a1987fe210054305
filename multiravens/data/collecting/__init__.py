"""Collecting demonstrations with several processes."""
