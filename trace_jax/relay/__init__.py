"""Adapters brought to inference servers that share no disk with the trainer. Needs no JAX."""
