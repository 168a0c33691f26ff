"""Policies and reward models on SGLang servers."""
