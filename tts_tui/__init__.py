"""Test-time scaling of language models that people can watch, steer and trust."""

