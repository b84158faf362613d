"""Tokens of older weights, kept apart from those whose log-probabilities should be the trainer's own."""

import jax
import jax.numpy as jnp

from trace_jax.training.loss import Terms


def split_stale(terms: Terms, staleness_M: jax.Array) -> Terms:
    """The terms of ``policy_loss`` with those of the mismatch for current tokens alone, and of the others beside them.

    Where the weights that sampled are the trainer's, log-probabilities differ by what two programs compute: the
    mismatch. Where they are older, the policy has moved as well, and the difference says nothing about the programs.

    Args:
        staleness_M: int32 ``[M]``, how many updates ago the weights that sampled each token were in force.
    """
    stale_M = staleness_M > 0
    current = {name: jnp.where(stale_M, 0, terms[name]) for name in ("delta", "abs_delta", "mismatch_kl")}
    stale = {f"stale_{name}": jnp.where(stale_M, terms[name], 0) for name in ("tokens", "delta", "abs_delta")}
    return {**terms, **current, **stale, "staleness": terms["tokens"] * staleness_M}
