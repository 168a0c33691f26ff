"""Training of process reward models: texts to learn from, adapters to learn with, and what both came to."""
