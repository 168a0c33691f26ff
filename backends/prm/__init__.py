"""Process reward models that run in this process."""
