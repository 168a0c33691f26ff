"""Measurement of process reward models."""
