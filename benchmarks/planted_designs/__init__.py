"""Environments with a planted fault each, and which gate refuses them."""
