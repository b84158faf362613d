"""FLOPs of attention kernels on TPUs: of our own, which work off a list of blocks, and of JAX's splash attention."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from trace_jax.models.kernels.flash_blocks import LANES, NO_ID, block_pairs, choose_blocks
from trace_jax.planning.flops import Formulas
from trace_jax.planning.shapes import Array

# Products of [queries, head width] × [head width, keys] or its like. The backward passes compute the scores anew:
# scores, dp, dv and dk in one kernel, scores, dp and dq in the other.
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
    """Formulas for ``Program.formulas``. ``computed``: the share of the pairs of a query and a key that is computed,
    about a half under a causal mask; kernels skip blocks in which no query sees a key."""
    return {name: partial(_flops, computed * products) for name, products in _PRODUCTS.items()}


def computed_share(segment_ids_BT: np.ndarray, parent_ids_BT: np.ndarray, group: int, itemsize: int) -> float:
    """The share that ``models.flash`` computes of packed rows, ``group`` query heads to a key head; the mean of rows.

    Sliding windows would make it less.
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
