"""Problem families and data files."""
