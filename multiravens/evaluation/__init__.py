"""Measuring agents: episodes, figures, intervals."""
