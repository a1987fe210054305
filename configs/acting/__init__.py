"""Options of a trained agent's acting."""
