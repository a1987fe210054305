"""Files, paths and progress, for every other package."""
