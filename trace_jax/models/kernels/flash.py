"""Attention over packed rows as Pallas kernels for TPUs. They make no ``[T, T]`` array and skip unrelated blocks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from trace_jax.errors import UserError
from trace_jax.models.kernels.flash_backward import backward_kv, backward_q
from trace_jax.models.kernels.flash_blocks import LANES, NO_ID, choose_blocks
from trace_jax.models.kernels.flash_forward import forward
from trace_jax.models.kernels.flash_tiles import Gradients, Operands, Settings
from trace_jax.parallel.collectives import vary, varying_axes


def flash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    parent_ids_BT: jax.Array,
    window: int | jax.Array | None = None,
    *,
    positions_BT: jax.Array | None = None,
    interpret: Any = False,
) -> jax.Array:
    """softmax(q kᵀ H^-0.5) v under the mask of ``packed_mask``: causal ∧ (segment ∨ parent); ``[B, T, N, H]`` like q.

    Query head n reads key head n // (N / K). Inputs are bfloat16 or float32; the softmax is float32. Padding (segment
    0) gets 0, and its gradients are 0. A ``window`` is a number of positions and may be traced. With a window, a query
    sees only keys that are fewer positions before it. A window needs positions, because behind a shared prefix the
    distance in the row differs from the distance in the text.

    Differentiable in q, k and v. Inside ``shard_map`` all shapes are local. The output and the logsumexp have the
    checkpoint name ``"attention"``: with a policy that saves it, the backward pass does not run the forward kernel
    again. ``interpret`` runs the kernels without a TPU, slowly (see ``pallas_call``).

    Raises:
        UserError: shapes or dtypes do not fit together, or a window comes without positions.
    """
    _check(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, parent_ids_BT, window, positions_BT)
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    q, k, v, segment, parent = (_padded(x) for x in (q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, parent_ids_BT))
    query_ids = [jnp.where(segment > 0, segment, NO_ID), jnp.where((segment > 0) & (parent > 0), parent, NO_ID)]
    key_ids = [segment]
    if window is not None and positions_BT is not None:
        query_ids.append(_padded(jnp.maximum(positions_BT - window + 1, 0)))
        key_ids.append(_padded(positions_BT))
    operands = Operands(
        jnp.stack(query_ids, axis=1).astype(jnp.int32),
        jnp.stack(key_ids, axis=1).astype(jnp.int32),
        q.reshape(B, -1, K, N // K, H).transpose(0, 2, 3, 1, 4),
        k.transpose(0, 2, 1, 3),
        v.transpose(0, 2, 1, 3),
    )
    settings = Settings(choose_blocks(q.shape[1], N // K, q.dtype.itemsize), interpret)
    out = _attention(settings, *_vary_alike(operands))
    return out.transpose(0, 3, 1, 2, 4).reshape(B, -1, N, H)[:, :T]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(settings: Settings, *operands: jax.Array) -> jax.Array:
    return forward(settings, Operands(*operands))[0]


def _attention_forward(settings: Settings, *operands: jax.Array) -> tuple[jax.Array, tuple]:
    out, lse = (checkpoint_name(x, "attention") for x in forward(settings, Operands(*operands)))
    return out, (Operands(*operands), out, lse)


def _attention_backward(settings: Settings, saved: tuple, dout_BKGTH: jax.Array) -> tuple:
    operands, out, lse = saved
    delta = jnp.sum(dout_BKGTH.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    gradients = Gradients(dout_BKGTH, lse, delta)
    return None, None, backward_q(settings, operands, gradients), *backward_kv(settings, operands, gradients)


_attention.defvjp(_attention_forward, _attention_backward)


def _padded(x: jax.Array) -> jax.Array:
    """Axis 1 filled with zeros to a multiple of 128: tokens of segment 0."""
    return jnp.pad(x, [(0, -x.shape[1] % LANES if axis == 1 else 0) for axis in range(x.ndim)])


def _vary_alike(arrays: Operands) -> Operands:
    """All arrays made to vary over the same mesh axes (inside ``shard_map``; the transpose sums their gradients)."""
    return vary(arrays, sorted(frozenset().union(*(varying_axes(x) for x in arrays))))


def _check(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    parent_ids: jax.Array,
    window: int | jax.Array | None,
    positions: jax.Array | None,
) -> None:
    B, T, N, H = q.shape
    K = k.shape[2]
    if k.shape != (B, T, K, H) or v.shape != k.shape or N % K:
        raise UserError(
            f"attention of q {q.shape} with k {k.shape} and v {v.shape}: k and v must be [B, T, K, H], K a divisor of N"
        )
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (jnp.bfloat16, jnp.float32):
        raise UserError(f"attention of {q.dtype}, {k.dtype}, {v.dtype}: q, k and v must all be bfloat16 or float32")
    if segment_ids.shape != (B, T) or parent_ids.shape != (B, T):
        raise UserError(f"ids {segment_ids.shape} and {parent_ids.shape} of attention: both must be {(B, T)}")
    if window is not None and positions is None:
        raise UserError(f"attention window {window} without positions: give positions_BT as well")
    if positions is not None and positions.shape != (B, T):
        raise UserError(f"positions {positions.shape} of attention: must be {(B, T)}")
    if isinstance(window, int) and window < 1:
        raise UserError(f"attention window {window}: must be at least 1")
