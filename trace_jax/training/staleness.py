"""Tokens of older weights, kept apart from those whose log-probabilities should be the trainer's own."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.models.buckets import bucket
from trace_jax.training.loss import Terms
from trace_jax.training.sample import Sample


def split_stale(terms: Terms, staleness_M: jax.Array) -> Terms:
    """The terms of ``policy_loss`` with those of the mismatch for current tokens alone, and of the others beside them.

    Where the weights that sampled are the trainer's, log-probabilities differ by what two programs compute: the
    mismatch. Where they are older, the policy has moved as well, and the difference says nothing about the programs.
    ``compared`` counts what the mismatch is about.

    Args:
        staleness_M: int32 ``[M]``, how many updates ago the weights that sampled each token were in force.
    """
    stale_M = staleness_M > 0
    current = {name: jnp.where(stale_M, 0, terms[name]) for name in ("delta", "abs_delta", "mismatch_kl")}
    current["compared"] = jnp.where(stale_M, 0, terms["tokens"])
    stale = {f"stale_{name}": jnp.where(stale_M, terms[name], 0) for name in ("tokens", "delta", "abs_delta")}
    return {**terms, **current, **stale, "staleness": terms["tokens"] * staleness_M}


def spot_check(samples: Sequence[Sample], most: int) -> tuple[int, list[Sample]]:
    """Stale contexts from all over the step that are to be scored with the weights which sampled them, and a length.

    Of each adapter they fit one row of that length: what holds the longest stale one, and at most ``most`` tokens.
    """
    stale = [one for one in samples if one.staleness_T is not None and one.staleness_T.any()]
    row_tokens = min(bucket(max((one.length for one in stale), default=0), steps=1), most)
    room: dict[int, int] = {}
    chosen = []
    for index in np.random.default_rng(0).permutation(len(stale)):  # the same in all processes
        one = stale[index]
        if one.length <= (left := room.get(one.adapter, row_tokens)):
            room[one.adapter] = left - one.length
            chosen.append(one)
    return row_tokens, chosen
