"""Environments: the protocol, the registry, and the built-in target."""
