"""Fusions of observation and goals."""
