"""Training on demonstrations."""
