"""Adaptation of a trained agent to a new problem, and export of a trained agent."""
