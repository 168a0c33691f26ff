"""Data sets: problem families and data files."""
