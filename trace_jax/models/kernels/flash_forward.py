"""The forward attention kernel: online softmax over the blocks of keys that a block of queries may see."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from trace_jax.models.kernels.flash_blocks import LANES
from trace_jax.models.kernels.flash_tiles import (
    MASKED,
    Operands,
    Settings,
    Step,
    columns,
    dot,
    masked_scores,
    row,
    run_pairs,
    widen,
)


def forward(settings: Settings, operands: Operands) -> tuple[jax.Array, jax.Array]:
    """Attention ``[B, K, G, T, H]`` in the dtype of q, and its base-2 logsumexp, float32 ``[B, K, G, T]``.

    Queries that see no key (padding) get 0 in both.
    """
    G, H = operands.q_BKGTH.shape[2], operands.q_BKGTH.shape[4]
    Q = settings.blocks.query
    scratch = [
        pltpu.VMEM((operands.query_ids_BIT.shape[1], Q, LANES), jnp.int32),
        pltpu.VMEM((G * Q, LANES), jnp.float32),
        pltpu.VMEM((G * Q, LANES), jnp.float32),
        pltpu.VMEM((G * Q, H), jnp.float32),
    ]
    out, lse = run_pairs(flash_forward, settings, operands, None, ["q", "lse"], scratch, by_key=False, products=2)
    return out, lse


def flash_forward(
    settings: Settings, step: Step, query_ids, key_ids, q, k, v, out, lse, id_columns, most, total, weighted
) -> None:
    """Running maximum, sum of exponentials and weighted sum of values (FlashAttention-2, algorithm 1)."""
    G, Q, H = q.shape
    C = k.shape[0]

    @pl.when(step.first)
    def _() -> None:
        id_columns[...] = columns(query_ids[...])
        most[...] = jnp.full_like(most, MASKED)
        total[...] = jnp.zeros_like(total)
        weighted[...] = jnp.zeros_like(weighted)

    @pl.when(step.valid)
    def _() -> None:
        scores = masked_scores(settings, step, id_columns, key_ids, q, k)
        before = most[...]
        now = jnp.maximum(before, scores.max(axis=1, keepdims=True))
        weights = jnp.exp2(scores - widen(now, C))
        decay = jnp.exp2(before - now)
        most[...] = now
        total[...] = decay * total[...] + weights.sum(axis=1, keepdims=True)
        weighted[...] = widen(decay, H) * weighted[...] + dot(weights.astype(v.dtype), v[...], 1, 0)

    @pl.when(step.last)
    def _() -> None:
        # A query that saw only masked keys has summed them with equal weights. Its sum is set to 0 here.
        sees = most[...] > MASKED / 2
        share = jnp.where(sees, 1 / total[...], 0.0)
        out[...] = (weighted[...] * widen(share, H)).reshape(G, Q, H).astype(out.dtype)
        logsumexp = jnp.where(sees, most[...] + jnp.log2(total[...]), 0.0)
        for g in range(G):
            lse[pl.ds(g, 1), :] = row(logsumexp[g * Q : (g + 1) * Q])
