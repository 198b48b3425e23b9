"""Registries: how images travel. Docker's registry protocol v2 and OCI distribution 1.1."""
