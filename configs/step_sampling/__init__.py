"""How often each step of a task's demonstrations is drawn in training."""
