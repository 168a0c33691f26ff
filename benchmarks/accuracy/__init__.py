"""Accuracy of the embedded PRM, and of searches under it, on held-out problems."""
