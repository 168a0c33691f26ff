"""Displays for terminals and files: rich, plain text, JSON lines, HTML."""
