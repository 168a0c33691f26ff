"""Policies on OpenAI-compatible servers."""
