"""Answers: extraction from solutions, comparison, and voting."""
