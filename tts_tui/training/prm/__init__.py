"""Training of a process reward model."""
