"""FLOPs of attention kernels on TPUs: our own kernels, which compute a list of blocks, and JAX's splash attention."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from trace_jax.models.kernels.flash_blocks import LANES, NO_ID, block_pairs, choose_blocks
from trace_jax.planning.flops import Formulas
from trace_jax.planning.shapes import Array

# The number of products of the size [queries, head width] × [head width, keys]. The backward kernels compute the scores
# again: one computes scores, dp, dv and dk, the other scores, dp and dq.
_PRODUCTS = {
    "flash_forward": 2,
    "flash_backward_kv": 4,
    "flash_backward_q": 3,
    "splash_mha_fwd": 2,
    "splash_mqa_fwd": 2,
    "splash_mha_dkv": 4,
    "splash_mqa_dkv": 4,
    "splash_mha_dq": 3,
    "splash_mqa_dq": 3,
}


def attention_kernels(computed: float) -> Formulas:
    """Formulas for ``Program.formulas``.

    ``computed`` is the share of the pairs of a query and a key that is computed. It is about a half under a causal
    mask, because kernels skip blocks in which no query sees a key.
    """
    return {name: partial(_flops, computed * products) for name, products in _PRODUCTS.items()}


def computed_share(segment_ids_BT: np.ndarray, parent_ids_BT: np.ndarray, group: int, itemsize: int) -> float:
    """The share of the pairs in packed rows that ``models.kernels.flash`` computes, as the mean of the rows.

    ``group`` counts the query heads of a key head, ``itemsize`` the bytes of an input element. Sliding windows, which
    would lower the share, are ignored.
    """
    T = segment_ids_BT.shape[1]
    padded = -(-T // LANES) * LANES
    segment, parent = (np.pad(ids, ((0, 0), (0, padded - T))) for ids in (segment_ids_BT, parent_ids_BT))
    query_ids = np.stack([np.where(segment > 0, segment, NO_ID), np.where(parent > 0, parent, NO_ID)], axis=1)
    blocks = choose_blocks(padded, group, itemsize)
    pairs = block_pairs(jnp.asarray(query_ids), jnp.asarray(segment[:, None]), blocks, by_key=False)
    return float(np.mean(pairs.count_B)) * blocks.query * blocks.key / padded**2


def _flops(products: float, operands: tuple[Array, ...]) -> float:
    queries, keys = [array for array in operands if array.dtype in ("bf16", "f32", "f16") and len(array.dims) >= 3][:2]
    return products * 2.0 * queries.elements * keys.dims[-2]
