"""The list of block pairs: no related pair missing, few unrelated ones, and in the order that the kernels rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed_rows import packed_ids

from trace_jax.models.attention import packed_mask
from trace_jax.models.kernels.flash_blocks import LANES, NO_ID, Blocks, block_pairs, choose_blocks

_block_pairs = jax.jit(block_pairs, static_argnums=(2, 3))


def _listed(segment, parent, positions, blocks, window, by_key):
    query_ids = [jnp.where(segment > 0, segment, NO_ID), jnp.where((segment > 0) & (parent > 0), parent, NO_ID)]
    key_ids = [segment]
    if window is not None:
        query_ids.append(jnp.maximum(positions - window + 1, 0))
        key_ids.append(positions)
    return [np.asarray(part) for part in _block_pairs(jnp.stack(query_ids, 1), jnp.stack(key_ids, 1), blocks, by_key)]


@pytest.mark.parametrize(
    ("blocks", "window"), [(Blocks(128, 128), None), (Blocks(128, 512), 60), (Blocks(512, 256), None)]
)
@pytest.mark.parametrize("by_key", [False, True])
def test_no_related_pair_is_missing(rng, blocks, window, by_key):
    segment, parent, positions = packed_ids(rng, 3, 2048)
    queries, keys, counts = _listed(segment, parent, positions, blocks, window, by_key)
    sees = np.array(packed_mask(segment, parent) & (segment > 0)[:, :, None])
    if window is not None:
        sees &= np.asarray(positions)[:, :, None] - np.asarray(positions)[:, None] < window
    related = sees.reshape(3, 2048 // blocks.query, blocks.query, 2048 // blocks.key, blocks.key).any(axis=(2, 4))
    for b in range(3):
        pairs = list(zip(queries[b, : counts[b]].tolist(), keys[b, : counts[b]].tolist(), strict=True))
        assert set(zip(*map(np.ndarray.tolist, np.nonzero(related[b])), strict=True)) <= set(pairs)
        # In order and without repetition, so that the pairs of a block are consecutive; each block is visited.
        assert pairs == sorted(set(pairs), key=lambda pair: pair[::-1] if by_key else pair)
        assert {pair[by_key] for pair in pairs} == set(range(2048 // blocks[by_key]))
        # The rest of the list repeats the last pair, which moves no data.
        assert {*zip(queries[b, counts[b] :].tolist(), keys[b, counts[b] :].tolist(), strict=True)} <= {pairs[-1]}


def test_unrelated_pairs_are_skipped():
    """Eight segments of two blocks each: three pairs a segment of the 136 under the diagonal; with a parent, two more
    for each block that sees it. A window of one block leaves the diagonal and its neighbour. Padding: the diagonal."""
    segment = jnp.repeat(jnp.arange(1, 9, dtype=jnp.int32), 256)[None]
    positions, blocks = jnp.arange(2048, dtype=jnp.int32)[None], Blocks(128, 128)

    def count(segment, parent, window=None):
        return int(_listed(segment, parent, positions, blocks, window, by_key=False)[2][0])

    assert count(segment, 0 * segment) == 8 * 3
    assert count(segment, jnp.where(segment > 1, 1, 0)) == 8 * 3 + 7 * 2 * 2
    assert count(jnp.ones_like(segment), 0 * segment) == 136
    assert count(jnp.ones_like(segment), 0 * segment, window=128) == 16 + 15
    assert count(0 * segment, 0 * segment) == 16


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("group", [1, 2, 3, 5, 8, 16])
def test_blocks_divide_the_row(group, itemsize):
    for length in (128, 384, 896, 1664, 4096, 6144, 12288):
        query, key = choose_blocks(length, group, itemsize)
        assert query % LANES == key % LANES == length % query == length % key == 0
        assert group * query * key * itemsize <= 2**20
