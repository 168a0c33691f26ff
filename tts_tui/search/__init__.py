"""A search over one tree: generation, scoring, branches, steering."""
