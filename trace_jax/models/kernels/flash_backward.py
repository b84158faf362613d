"""The gradient kernels of attention, from the saved output and logsumexp (FlashAttention-2, algorithm 2).

With weights ``p = 2^(scores - lse)`` and ``delta`` the sum over H of dout · out,
``ds = p (dout vᵀ - delta)``, ``dq = H^-0.5 ds k``, ``dk = H^-0.5 dsᵀ q`` and ``dv = pᵀ dout``.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from trace_jax.models.kernels.flash_blocks import LANES
from trace_jax.models.kernels.flash_tiles import (
    Gradients,
    Operands,
    Settings,
    Step,
    bias,
    columns,
    dot,
    masked_scores,
    run_pairs,
    score_scale,
    stack_heads,
    widen,
)


def backward_q(settings: Settings, operands: Operands, gradients: Gradients) -> jax.Array:
    """Gradient of q, ``[B, K, G, T, H]``."""
    G, H = operands.q_BKGTH.shape[2], operands.q_BKGTH.shape[4]
    Q = settings.blocks.query
    scratch = [
        pltpu.VMEM((operands.query_ids_BIT.shape[1], Q, LANES), jnp.int32),
        pltpu.VMEM((G * Q, LANES), jnp.float32),
        pltpu.VMEM((G * Q, LANES), jnp.float32),
        pltpu.VMEM((G * Q, H), jnp.float32),
    ]
    (dq,) = run_pairs(flash_backward_q, settings, operands, gradients, ["q"], scratch, by_key=False, products=3)
    return dq


def backward_kv(settings: Settings, operands: Operands, gradients: Gradients) -> tuple[jax.Array, jax.Array]:
    """Gradients of k and v, ``[B, K, T, H]`` each, summed over the heads of the group."""
    H, C = operands.k_BKTH.shape[3], settings.blocks.key
    scratch = [
        pltpu.VMEM((operands.key_ids_BIT.shape[1], C, LANES), jnp.int32),
        pltpu.VMEM((C, H), jnp.float32),
        pltpu.VMEM((C, H), jnp.float32),
    ]
    dk, dv = run_pairs(flash_backward_kv, settings, operands, gradients, ["k", "k"], scratch, by_key=True, products=4)
    return dk, dv


def flash_backward_q(
    settings: Settings,
    step: Step,
    query_ids,
    key_ids,
    q,
    k,
    v,
    dout,
    lse,
    delta,
    dq,
    id_columns,
    lse_column,
    delta_column,
    sum_dq,
) -> None:
    """Scores as ``[R, C]``."""
    G, Q, H = q.shape
    C = k.shape[0]

    @pl.when(step.first)
    def _() -> None:
        id_columns[...] = columns(query_ids[...])
        lse_column[...] = columns(lse[...]).reshape(G * Q, LANES)
        delta_column[...] = columns(delta[...]).reshape(G * Q, LANES)
        sum_dq[...] = jnp.zeros_like(sum_dq)

    @pl.when(step.valid)
    def _() -> None:
        scores = masked_scores(settings, step, id_columns, key_ids, q, k)
        weights = jnp.exp2(scores - widen(lse_column[...], C))
        dweights = dot(dout[...].reshape(G * Q, H), v[...], 1, 1)
        dscores = weights * (dweights - widen(delta_column[...], C))
        sum_dq[...] += dot(dscores.astype(k.dtype), k[...], 1, 0)

    @pl.when(step.last)
    def _() -> None:
        dq[...] = (sum_dq[...] * H**-0.5).reshape(G, Q, H).astype(dq.dtype)


def flash_backward_kv(
    settings: Settings,
    step: Step,
    query_ids,
    key_ids,
    q,
    k,
    v,
    dout,
    lse,
    delta,
    dk,
    dv,
    id_columns,
    sum_dk,
    sum_dv,
) -> None:
    """Scores as ``[C, R]``, so that neither sum over queries needs a transposition."""
    G, Q, H = q.shape

    @pl.when(step.first)
    def _() -> None:
        id_columns[...] = columns(key_ids[...])
        sum_dk[...] = jnp.zeros_like(sum_dk)
        sum_dv[...] = jnp.zeros_like(sum_dv)

    @pl.when(step.valid)
    def _() -> None:
        query_rows = [query_ids[pl.ds(i, 1), :] for i in range(query_ids.shape[0])]
        key_columns = [widen(id_columns[j], Q) for j in range(id_columns.shape[0])]
        masked = bias(settings, step, query_rows, key_columns, query_axis=1)
        stacked_q, stacked_dout = q[...].reshape(G * Q, H), dout[...].reshape(G * Q, H)
        scores = dot(k[...], stacked_q, 1, 1) * score_scale(H) + jnp.tile(masked, (1, G))
        weights = jnp.exp2(scores - stack_heads(lse[...]))
        sum_dv[...] += dot(weights.astype(dout.dtype), stacked_dout, 1, 0)
        dweights = dot(v[...], stacked_dout, 1, 1)
        dscores = weights * (dweights - stack_heads(delta[...]))
        sum_dk[...] += dot(dscores.astype(q.dtype), stacked_q, 1, 0)

    @pl.when(step.last)
    def _() -> None:
        dk[...] = (sum_dk[...] * H**-0.5).astype(dk.dtype)
        dv[...] = sum_dv[...].astype(dv.dtype)
