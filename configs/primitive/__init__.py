"""Motions that one action asks for."""
