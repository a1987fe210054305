"""How trained agents act."""
