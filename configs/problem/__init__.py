"""The base on which problems are composed of modules."""
