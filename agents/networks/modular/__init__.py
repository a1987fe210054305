"""Networks of one bank of residual blocks, run by programs."""
