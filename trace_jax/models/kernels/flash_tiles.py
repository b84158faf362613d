"""The common parts of the three attention kernels: the call over a list of block pairs, masks, products, layouts.

A kernel works on one pair of blocks a step: ``C`` keys, and ``Q`` queries of each of the ``G`` heads that share a key
head. The queries are stacked to ``R = G · Q`` rows, so that the keys are read, and the mask is made, once for the whole
group. Scores are float32 and to the base 2: ``q kᵀ · H^-0.5 · log2 e``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from trace_jax.models.kernels.flash_blocks import LANES, Blocks, block_pairs

MASKED = -1e30  # added to the score of an unrelated pair; its exponential is then exactly 0
# Bytes. Usual shapes fit the 16 MiB that a kernel gets by default; float32 groups of 16 heads and more need this limit.
VMEM_LIMIT = 32 * 2**20


class Settings(NamedTuple):
    """The static parameters of a call: the blocks, and Pallas's ``interpret``."""

    blocks: Blocks
    interpret: Any


class Operands(NamedTuple):
    """The inputs of all kernels. Ids are as in ``block_pairs``; padding has no id."""

    query_ids_BIT: jax.Array
    key_ids_BIT: jax.Array
    q_BKGTH: jax.Array
    k_BKTH: jax.Array
    v_BKTH: jax.Array


class Gradients(NamedTuple):
    """Further inputs of the gradient kernels, float32: ``lse`` is the base-2 logsumexp, ``delta`` sums dout · out."""

    dout_BKGTH: jax.Array
    lse_BKGT: jax.Array
    delta_BKGT: jax.Array


class Step(NamedTuple):
    """The position of a step.

    ``first`` and ``last`` mark the first and the last step of the block whose results are summed. ``valid`` is False
    for a step without work. The block of queries begins ``ahead`` tokens after the block of keys.
    """

    first: jax.Array
    last: jax.Array
    valid: jax.Array
    ahead: jax.Array


def run_pairs(
    kernel: Callable,
    settings: Settings,
    operands: Operands,
    gradients: Gradients | None,
    outputs: Sequence[str],
    scratch: Sequence[Any],
    by_key: bool,
    products: int,
) -> list[jax.Array]:
    """Run ``kernel`` over all pairs of blocks of all rows and key heads; see ``Step`` for their order.

    ``outputs`` names, for each output, the operand with the same shape and blocks: ``"q"``, ``"k"`` or ``"lse"``. The
    kernel gets ``(settings, step, *operands, *gradients, *outputs, *scratch)`` without the axes of row and key head.
    ``products`` counts the kernel's matrix products a step. XLA reads a cost estimate to choose the collectives that it
    overlaps with the kernel; the estimate assumes rows of one segment each.
    """
    B, K, G, T, H = operands.q_BKGTH.shape
    Q, C = settings.blocks
    pairs = block_pairs(operands.query_ids_BIT, operands.key_ids_BIT, settings.blocks, by_key)
    query_kinds, key_kinds = operands.query_ids_BIT.shape[1], operands.key_ids_BIT.shape[1]
    query_ids = pl.BlockSpec((None, query_kinds, Q), lambda b, h, s, q, k, n: (b, 0, q[b, s]))
    key_ids = pl.BlockSpec((None, key_kinds, C), lambda b, h, s, q, k, n: (b, 0, k[b, s]))
    specs = {
        "q": pl.BlockSpec((None, None, G, Q, H), lambda b, h, s, q, k, n: (b, h, 0, q[b, s], 0)),
        "k": pl.BlockSpec((None, None, C, H), lambda b, h, s, q, k, n: (b, h, k[b, s], 0)),
        "lse": pl.BlockSpec((None, None, G, Q), lambda b, h, s, q, k, n: (b, h, 0, q[b, s])),
    }
    like = {
        "q": (operands.q_BKGTH.shape, operands.q_BKGTH.dtype),
        "k": (operands.k_BKTH.shape, operands.k_BKTH.dtype),
        "lse": ((B, K, G, T), jnp.float32),
    }
    arrays = [*operands, *(gradients or ())]
    scores = pairs.query_BP.size * K * G * Q * C
    cost = pl.CostEstimate(
        flops=2 * products * scores * H, transcendentals=scores, bytes_accessed=sum(x.nbytes for x in arrays)
    )
    # The outputs vary over the same mesh axes as q (and, see flash.py, all other operands) inside a shard_map.
    vary = jax.typeof(operands.q_BKGTH).manual_axis_type

    def body(query_blocks, key_blocks, counts, *refs):
        kernel(settings, _step(query_blocks, key_blocks, counts, settings.blocks, by_key), *refs)

    call = pl.pallas_call(
        body,
        out_shape=[jax.ShapeDtypeStruct(*like[name], manual_axis_type=vary) for name in outputs],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            # Steps without work occur only in rows that have fewer pairs than the row with the most.
            grid=(B, K, pairs.count_B.max()),
            in_specs=[query_ids, key_ids, specs["q"], specs["k"], specs["k"]]
            + ([specs["q"], specs["lse"], specs["lse"]] if gradients else []),
            out_specs=[specs[name] for name in outputs],
            scratch_shapes=list(scratch),
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT
        ),
        cost_estimate=cost,
        interpret=settings.interpret,
        name=kernel.__name__,
    )
    return call(*pairs, *arrays)


def _step(query_blocks, key_blocks, counts, blocks: Blocks, by_key: bool) -> Step:
    row, number = pl.program_id(0), pl.program_id(2)
    summed = key_blocks if by_key else query_blocks
    block, end = summed[row, number], counts[row] - 1
    first = (number == 0) | (summed[row, jnp.maximum(number - 1, 0)] != block)
    last = (number == end) | (summed[row, jnp.minimum(number + 1, summed.shape[1] - 1)] != block)
    ahead = query_blocks[row, number] * blocks.query - key_blocks[row, number] * blocks.key
    return Step(first, last, number <= end, ahead)


def bias(
    settings: Settings, step: Step, query_ids: Sequence[Any], key_ids: Sequence[Any], query_axis: int
) -> jax.Array:
    """0 where the query may see the key and ``MASKED`` elsewhere, float32 ``[Q, C]`` or, for query axis 1, ``[C, Q]``.

    There is one array for each kind of id. The arrays of queries and of keys broadcast against each other.
    """
    (segment, parent, *earliest), (key, *position) = query_ids, key_ids
    size = settings.blocks if query_axis == 0 else settings.blocks[::-1]
    distance = _iota(size, query_axis) - _iota(size, 1 - query_axis) + step.ahead
    sees = ((segment == key) | (parent == key)) & (distance >= 0)
    if earliest:
        sees &= position[0] >= earliest[0]
    return jnp.where(sees, 0.0, MASKED)


def masked_scores(settings: Settings, step: Step, id_columns: Any, key_ids: Any, q: Any, k: Any) -> jax.Array:
    """Scores of a step's queries, float32 ``[R, C]``, plus ``MASKED`` for unrelated pairs. ``columns`` made the ids."""
    G, Q, H = q.shape
    C = k.shape[0]
    query_columns = [widen(id_columns[i], C) for i in range(id_columns.shape[0])]
    key_rows = [key_ids[pl.ds(j, 1), :] for j in range(key_ids.shape[0])]
    scores = dot(q[...].reshape(G * Q, H), k[...], 1, 1) * score_scale(H)
    scores = scores.reshape(G, Q, C) + bias(settings, step, query_columns, key_rows, query_axis=0)
    return scores.reshape(G * Q, C)


def _iota(size: tuple[int, ...], axis: int) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, size, axis)


def dot(x: jax.Array, y: jax.Array, axis_x: int, axis_y: int) -> jax.Array:
    """Product of two matrices over the named axes in float32; inputs of float32 are not rounded to bfloat16."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    dims = (((axis_x,), (axis_y,)), ((), ()))
    return jax.lax.dot_general(x, y, dims, precision=precision, preferred_element_type=jnp.float32)


def score_scale(width: int) -> float:
    """H^-0.5 · log2 e. The hardware's exponential has the base 2, and softmax(x) is the normalised 2^(x log2 e)."""
    return width**-0.5 * math.log2(math.e)


def columns(rows: jax.Array) -> jax.Array:
    """``[I, n]``, with n along the lanes, as ``[I, n, 128]``, with n along the sublanes, repeated over the lanes."""
    turned = [jnp.broadcast_to(rows[i : i + 1], (LANES, rows.shape[1])).T for i in range(rows.shape[0])]
    return jnp.stack(turned)


def row(columns_n: jax.Array) -> jax.Array:
    """The inverse of ``columns`` for one row: ``[n, 128]`` to ``[1, n]``."""
    return columns_n.T[:1]


def stack_heads(rows_GQ: jax.Array) -> jax.Array:
    """``[G, Q]`` to one row ``[1, R]``."""
    return jnp.concatenate([rows_GQ[g : g + 1] for g in range(rows_GQ.shape[0])], axis=1)


def widen(column: jax.Array, width: int) -> jax.Array:
    """A column ``[n, 128]`` repeated (or cut) to ``[n, width]``."""
    return jnp.tile(column, (1, pl.cdiv(width, LANES)))[:, :width]
