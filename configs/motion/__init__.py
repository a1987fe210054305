"""Motions of the suction head."""
