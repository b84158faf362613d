"""TRACE in JAX: failed trajectories in, a routed set of LoRA adapters out."""
