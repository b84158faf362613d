"""The key/value cache of the embedded engine: blocks of columns, written in place."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.models.config import DecoderConfig

# The letter Z stands for slots (conversations), C for columns (token positions).
# There is one array per layer and block of columns. A step that needs few columns takes few blocks, without a copy, and
# products over short blocks are faster on the CPU than over long ones. Keys are [Z, K, H, BLOCK] and values
# [Z, K, BLOCK, H], so that the products with queries and with attention weights are plain matrix products; with
# transposed operands they take twice as long.
BLOCK = 128
Blocks = tuple[tuple[jax.Array, ...], ...]  # [layer][block]
Cache = dict[str, Blocks]  # "k" and "v"


def new_cache(config: DecoderConfig, slots: int, capacity: int, dtype: Any) -> Cache:
    """An empty cache for ``slots`` conversations of up to ``capacity`` tokens, rounded up to whole blocks."""
    count = -(-capacity // BLOCK)

    def blocks(*shape: int) -> Blocks:
        whole = (slots, config.num_kv_heads, *shape)
        return tuple(tuple(jnp.zeros(whole, dtype) for _ in range(count)) for _ in range(config.num_layers))

    return {"k": blocks(config.head_dim, BLOCK), "v": blocks(BLOCK, config.head_dim)}


def take_blocks(cache: Cache, count: int) -> Cache:
    """The first ``count`` blocks of every layer."""
    return {name: tuple(layer[:count] for layer in layers) for name, layers in cache.items()}


def put_blocks(cache: Cache, head: Cache) -> Cache:
    """``cache`` with its first blocks replaced by those of ``head``."""
    return {
        name: tuple((*new, *old[len(new) :]) for new, old in zip(head[name], layers, strict=True))
        for name, layers in cache.items()
    }


def write_keys(
    blocks: tuple[jax.Array, ...], slot_B: jax.Array, column_BW: jax.Array, new_BWKH: jax.Array
) -> tuple[jax.Array, ...]:
    """Write one layer's new keys. Columns outside the blocks are dropped; -1 marks padding."""
    return tuple(
        block.at[slot_B[:, None], :, :, here].set(new_BWKH.astype(block.dtype), mode="drop")
        for block, here in zip(blocks, _within(len(blocks), column_BW), strict=True)
    )


def write_values(
    blocks: tuple[jax.Array, ...], slot_B: jax.Array, column_BW: jax.Array, new_BWKH: jax.Array
) -> tuple[jax.Array, ...]:
    """As ``write_keys``, for values."""
    return tuple(
        block.at[slot_B[:, None], :, here].set(new_BWKH.astype(block.dtype), mode="drop")
        for block, here in zip(blocks, _within(len(blocks), column_BW), strict=True)
    )


def _within(blocks: int, column_BW: jax.Array) -> list[jax.Array]:
    """The columns, counted from the start of each block. Those of other blocks, and padding, become ``BLOCK``."""
    starts = range(0, blocks * BLOCK, BLOCK)
    return [jnp.where(column_BW >= start, column_BW - start, BLOCK) for start in starts]


def attend(
    q_BWNH: jax.Array,
    keys: tuple[jax.Array, ...],
    values: tuple[jax.Array, ...],
    last_BW: jax.Array,
    window: int | None = None,
) -> jax.Array:
    """Grouped-query attention over blocks of keys ``[B, K, H, BLOCK]`` and values ``[B, K, BLOCK, H]``.

    A query sees the columns up to ``last_BW``; with a ``window``, only the last ``window`` of these. Query head n reads
    key head n // (N / K). The softmax is in float32.
    Returns ``[B, W, N, H]``.
    """
    B, W, N, H = q_BWNH.shape
    K = keys[0].shape[1]
    q = (q_BWNH * H**-0.5).reshape(B, W, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    score = jnp.concatenate(
        [jnp.einsum("bkmh,bkhc->bkmc", q, key, preferred_element_type=jnp.float32) for key in keys], axis=-1
    ).reshape(B, K, N // K, W, -1)
    column_C = jnp.arange(score.shape[-1])
    seen_BWC = column_C <= last_BW[:, :, None]
    if window is not None:
        seen_BWC &= last_BW[:, :, None] - column_C < window
    score = jnp.where(seen_BWC[:, None, None], score, np.finfo(np.float32).min)
    weight = jax.nn.softmax(score, axis=-1).reshape(B, K, N // K * W, -1).astype(values[0].dtype)
    out = jnp.zeros_like(q)
    for index, value in enumerate(values):
        out += jnp.einsum("bkmc,bkch->bkmh", weight[..., index * BLOCK : (index + 1) * BLOCK], value)
    return out.reshape(B, K, N // K, W, H).transpose(0, 3, 1, 2, 4).reshape(B, W, N, H)


@partial(jax.jit, donate_argnums=0)
def copy_slot(cache: Cache, other: Cache | None, source: jax.Array, target: jax.Array) -> Cache:
    """``cache`` with slot ``target`` replaced by slot ``source`` of ``other`` (None: of ``cache``)."""

    def copy(block: jax.Array, read: jax.Array) -> jax.Array:
        # A slice update is done in place; a scatter, or a loop over several slots, would copy the whole cache.
        copied: jax.Array = jax.lax.dynamic_update_index_in_dim(
            block, jax.lax.dynamic_index_in_dim(read, source), target, 0
        )
        return copied

    changed: Cache = jax.tree.map(copy, cache, cache if other is None else other)
    return changed


@partial(jax.jit, donate_argnums=0)
def clear_slot(cache: Cache, slot: jax.Array) -> Cache:
    """Set one slot to zero: a column that is masked but not finite would still spoil the weighted sum over values."""
    changed: Cache = jax.tree.map(lambda x: x.at[slot].set(0), cache)
    return changed
