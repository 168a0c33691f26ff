"""The inference engine for small models on a CPU or one GPU."""
