"""Attention, its mask over packed rows, and rotary positions. Shape letters: see ``trace_jax.models``."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from trace_jax.models.config import DecoderConfig
from trace_jax.models.execution import Execution
from trace_jax.models.kernels.flash import flash_attention
from trace_jax.models.rope import rope_frequencies

_BLOCKS = 4  # most blocks of queries in a row; a CPU computes them one after the other
_SHORTEST = 96  # fewest queries in a block

Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def packed_mask(segment_ids_BT: jax.Array, parent_ids_BT: jax.Array) -> jax.Array:
    """Which tokens a token sees in packed rows, bool ``[B, T, T]``.

    causal ∧ (segment_q = segment_k ∨ parent_q = segment_k).

    Segment 0 is padding. Padding sees only padding, so that its softmax stays finite, and no real token sees padding.
    Parent 0 means no parent.
    """
    T = segment_ids_BT.shape[1]
    query, key, parent = segment_ids_BT[:, :, None], segment_ids_BT[:, None, :], parent_ids_BT[:, :, None]
    related = (query == key) | ((parent == key) & (key != 0) & (query != 0))
    return related & jnp.tril(jnp.ones((T, T), bool))


def attend(q_BSNH: jax.Array, k_BKCH: jax.Array, v_BKCH: jax.Array, mask_BSC: jax.Array) -> jax.Array:
    """Grouped-query attention, softmax(q kᵀ / √H) v with a float32 softmax; query head n reads key head n // (N / K).

    S counts queries and C keys. Keys and values have the head axis before the time axis, so that the products are plain
    batched matrix products and the cache is not transposed. Returns ``[B, S, N, H]`` in the dtype of ``q``.
    """
    B, S, N, H = q_BSNH.shape
    K = k_BKCH.shape[1]
    q = (q_BSNH * H**-0.5).reshape(B, S, K, N // K, H).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum("bkgsh,bkch->bkgsc", q, k_BKCH, preferred_element_type=jnp.float32)
    scores = jnp.where(mask_BSC[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BKCH.dtype)
    out = jnp.einsum("bkgsc,bkch->bkgsh", weights, v_BKCH)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, S, N, H).astype(q_BSNH.dtype)


def attend_packed(
    segment_ids_BT: jax.Array,
    parent_ids_BT: jax.Array,
    positions_BT: jax.Array,
    execution: Execution,
    window: jax.Array | None = None,
) -> Attention:
    """Attention over whole packed rows under ``packed_mask``: ``(q [B, T, N, H], k, v [B, T, K, H])`` to
    ``[B, T, N, H]``. Only this function chooses a kernel.

    With a ``window`` (a number of positions) a token sees only tokens that are fewer positions before it.

    - xla computes one row at a time, and computes it again in the backward pass. The scores of a row then stay in the
      cache of a CPU, which halves the time of attention and its gradient.
    - flash is ``flash.flash_attention``, for TPUs. Padding gets 0 there.
    - cudnn is NVIDIA's kernel, with the mask as its bias. It takes bfloat16 only.

    The output has the checkpoint name "attention". flash also gives this name to the logsumexp of its gradient.
    """
    if execution.attention == "flash":
        ids = {"segment_ids_BT": segment_ids_BT, "parent_ids_BT": parent_ids_BT, "positions_BT": positions_BT}
        return partial(flash_attention, window=window, **ids)
    mask_BTT = packed_mask(segment_ids_BT, parent_ids_BT)
    if window is not None:
        mask_BTT &= positions_BT[:, :, None] - positions_BT[:, None, :] < window

    def whole(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask_BTT)

    def by_row(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        @jax.checkpoint
        def attend_row(row: tuple[jax.Array, ...]) -> jax.Array:
            q, k, v, mask = (array[None] for array in row)
            # No query sees a key behind its block, so the scores there are not computed.
            block = max(_SHORTEST, -(-q.shape[1] // _BLOCKS))
            ends = [*range(block, q.shape[1], block), q.shape[1]]
            blocks = [
                attend(q[:, start:end], k[:, :, :end], v[:, :, :end], mask[:, start:end, :end])
                for start, end in zip([0, *ends], ends, strict=False)
            ]
            return jnp.concatenate(blocks, axis=1)[0]

        return jax.lax.map(attend_row, (q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask_BTT))

    kernel: Attention = by_row if execution.attention_rows else whole
    if execution.attention == "cudnn":
        kernel = partial(jax.nn.dot_product_attention, mask=mask_BTT[:, None], implementation="cudnn")
    return lambda q, k, v: checkpoint_name(kernel(q, k, v), "attention")


def rotary_angles(positions_BT: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the angles position · frequency (``rope_frequencies``), each float32 ``[B, T, 1, H/2]``."""
    angle = positions_BT.astype(jnp.float32)[:, :, None, None] * rope_frequencies(config)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BTNH: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate each head by its position. Pairs are (i, i + H/2), the layout of Hugging Face weights."""
    cos, sin = angles
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTNH.dtype)
