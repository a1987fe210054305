"""Named lists of problems."""
