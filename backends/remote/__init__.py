"""Shared parts of policies and reward models on servers: HTTP, dispatch, retries."""
