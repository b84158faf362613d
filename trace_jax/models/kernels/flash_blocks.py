"""The work list of the attention kernels: the pairs of a block of queries and a block of keys to compute."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128
NO_ID = -1  # the id of a query without a segment or a parent; no key has this id


class Blocks(NamedTuple):
    """Rows are cut into blocks of ``query`` and of ``key`` tokens; both divide the length and are multiples of 128."""

    query: int
    key: int


class Pairs(NamedTuple):
    """The pairs of blocks to compute, for each row in order; entries from ``count`` on repeat the last pair.

    A repeated pair moves no data and is not computed. ``query_BP`` and ``key_BP``, int32 ``[B, P]``, number the blocks;
    ``count_B`` is int32 ``[B]``. All three lie in the 1 MiB of scalar memory. P is 544 for rows of 8,192 tokens and
    groups of 8 heads, and 8,448 for rows of 32,768.
    """

    query_BP: jax.Array
    key_BP: jax.Array
    count_B: jax.Array


def choose_blocks(length: int, group: int, itemsize: int) -> Blocks:
    """Block sizes for rows of ``length`` tokens (a multiple of 128).

    ``group`` counts the query heads of a key head, and ``itemsize`` the bytes of an input element. The heads of a group
    are stacked, so that a step multiplies ``group · query`` rows with ``key`` columns.

    Bfloat16 inputs get 2^19 scores a step. Four float32 arrays of that size are alive in the backward pass, which is
    8 MiB. Together with the double-buffered blocks of q, k, v, dout and the accumulators they fit the 16 MiB of VMEM
    that a kernel gets on every TPU. Float32 inputs get half as many scores, because their products take several passes.
    In the compiled schedules of v5e and v6e, twice the scores gain nothing, and half of them cost a tenth more an
    element. Query blocks are the smallest that stack to 1024 rows: small blocks cross fewer borders of segments.
    """
    scores = 2**20 // itemsize
    query = _largest_divisor(length, max(scores // 512 // group, LANES))
    key = _largest_divisor(length, max(scores // (group * query), LANES), 512)
    return Blocks(query, key)


def _largest_divisor(length: int, *limits: int) -> int:
    """The largest multiple of 128 that divides ``length`` and exceeds no limit."""
    return max(size for size in range(LANES, min(length, *limits) + 1, LANES) if length % size == 0)


def block_pairs(query_ids_BIT: jax.Array, key_ids_BIT: jax.Array, blocks: Blocks, by_key: bool) -> Pairs:
    """All pairs of blocks in which a query may see a key. No such pair is missing; some others may be included.

    The rows of ``query_ids_BIT`` are the segment, the parent and, with a window, the earliest position that is seen.
    The rows of ``key_ids_BIT`` are the segment and, with a window, the position. Pairs are in the order of the query
    blocks, or in that of the key blocks if ``by_key``.

    Pairs above the diagonal are left out at trace time. Of the others, a pair is kept if its ranges of ids overlap: a
    block of packed segments has a narrow range. Pairs on the diagonal are always kept, so that each block is visited.
    """
    T = query_ids_BIT.shape[-1]
    q, k = np.indices((T // blocks.query, T // blocks.key))
    first_q, first_k = q * blocks.query, k * blocks.key
    causal = first_k < first_q + blocks.query
    on_diagonal = causal & (first_q < first_k + blocks.key)

    ranges_q, ranges_k = _ranges(query_ids_BIT, blocks.query), _ranges(key_ids_BIT, blocks.key)
    low_q, high_q = (part[:, :, :, None] for part in ranges_q)
    low_k, high_k = (part[:, :, None, :] for part in ranges_k)
    meet = (low_q[:, :2] <= high_k[:, :1]) & (low_k[:, :1] <= high_q[:, :2])
    related = meet.any(axis=1)
    if query_ids_BIT.shape[1] == 3:
        related &= low_q[:, 2] <= high_k[:, 1]

    q, k = np.nonzero(causal)
    if by_key:
        order = np.lexsort((q, k))
        q, k = q[order], k[order]
    active_BP = (related | on_diagonal)[:, q, k]
    count_B = active_BP.sum(axis=1, dtype=jnp.int32)
    order_BP = jnp.argsort(~active_BP, axis=1, stable=True)
    order_BP = jnp.take_along_axis(order_BP, jnp.minimum(jnp.arange(len(q)), count_B[:, None] - 1), axis=1)
    return Pairs(jnp.asarray(q, jnp.int32)[order_BP], jnp.asarray(k, jnp.int32)[order_BP], count_B)


def _ranges(ids_BIT: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The least and the greatest id of each kind in each block of ``size`` tokens, int32 ``[B, I, T / size]`` each.

    Padding is left out: all ids of tokens without a segment, and missing parents. A block of padding alone has an empty
    range, in which the least is above the greatest.
    """
    ids = ids_BIT.reshape(*ids_BIT.shape[:2], -1, size)
    real = (ids[:, :1] > 0) & (ids >= 0)
    low = jnp.where(real, ids, jnp.iinfo(jnp.int32).max).min(axis=-1)
    return low, jnp.where(real, ids, NO_ID).max(axis=-1)
