"""Teaching a trained agent, and handing it on."""
