"""Named problems, and the base on which other names are composed."""
