"""Policies that run in this process."""
