"""Metrics of stale tokens, which older weights sampled, kept apart from those of current tokens."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.models.buckets import bucket
from trace_jax.training.loss import Terms
from trace_jax.training.sample import Sample


def split_stale(terms: Terms, staleness_M: jax.Array) -> Terms:
    """The terms of ``policy_loss`` with the mismatch of current tokens alone, and those of stale tokens as ``stale_*``.

    For a token that the current weights sampled, trainer and sampler should compute the same log-probability: their
    difference is the mismatch of two programs. For a stale token the policy has moved as well, so the difference says
    nothing about the programs. ``compared`` counts the tokens that the mismatch is about.

    Args:
        staleness_M: int32 ``[M]``, how many updates ago the weights that sampled each token were current.
    """
    stale_M = staleness_M > 0
    current = {name: jnp.where(stale_M, 0, terms[name]) for name in ("delta", "abs_delta", "mismatch_kl")}
    current["compared"] = jnp.where(stale_M, 0, terms["tokens"])
    stale = {f"stale_{name}": jnp.where(stale_M, terms[name], 0) for name in ("tokens", "delta", "abs_delta")}
    return {**terms, **current, **stale, "staleness": terms["tokens"] * staleness_M}


def spot_check(samples: Sequence[Sample], most: int) -> tuple[int, list[Sample]]:
    """Choose stale samples to be scored anew with the weights that sampled them.

    Returns:
        A row length, which fits the longest stale sample and is at most ``most`` tokens, and samples from all over the
        step. Those of one adapter fit one row of that length.
    """
    stale = [sample for sample in samples if sample.staleness_T is not None and sample.staleness_T.any()]
    row_tokens = min(bucket(max((sample.length for sample in stale), default=0), steps=1), most)
    room: dict[int, int] = {}
    chosen = []
    for index in np.random.default_rng(0).permutation(len(stale)):  # the same in all processes
        sample = stale[index]
        if sample.length <= (left := room.get(sample.adapter, row_tokens)):
            room[sample.adapter] = left - sample.length
            chosen.append(sample)
    return row_tokens, chosen
