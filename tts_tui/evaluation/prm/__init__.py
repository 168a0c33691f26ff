"""Measuring a process reward model."""
