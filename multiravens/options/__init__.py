"""Options: composed from YAML and the command line, checked, and made into objects."""
