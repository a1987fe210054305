"""Episodes in files."""
