"""A storm of server faults: hundreds of searches on servers that break in every way a server can."""
