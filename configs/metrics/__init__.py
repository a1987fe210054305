"""Lists of metrics."""
