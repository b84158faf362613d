"""Moves tokens to the rows of their experts and back, in rounds: one window of every expert's queue, of fixed shape."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from trace_jax.models.execution import Experts
from trace_jax.models.kernels.grouped import grouped_outer
from trace_jax.parallel.collectives import axis_index, gather

# Letters beyond the project's: U tokens (of all rows, flat), S experts chosen for a token, Q = U · S assignments,
# X rows of a round, P devices along the mesh axis ``expert``.
_SLACK = 1.25  # rows of a round ÷ rows that an even load would fill; an uneven load takes more rounds
_MULTIPLE = {"ragged": 128, "capacity": 8}  # rows; a TPU's ragged product works in tiles that divide them, at most 128
_BLOCK = 128  # tokens whose rows one product sums


@partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "order_PQ", "expert_US", "place_US", "first_LP", "start_LP", "end_LP"])  # fmt: skip
@dataclass(frozen=True)
class Queues:
    """The assignments that wait for this device's L experts, sorted by expert, then by the device that sent them.

    All arrays are int32. ``order_PQ`` holds, for each sender, its flat assignments sorted by expert. Each queue has P
    parts, one for each sender: a part takes the positions ``start_LP`` to ``end_LP`` (exclusive) and begins at
    ``first_LP`` in its sender's ``order_PQ``. ``expert_US`` is the local expert of every assignment, or L if the expert
    is on another device. ``place_US`` is the position of the assignment.
    """

    order_PQ: jax.Array
    expert_US: jax.Array
    place_US: jax.Array
    first_LP: jax.Array
    start_LP: jax.Array
    end_LP: jax.Array


@partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "token_X", "choice_X", "valid_X", "row_US", "sizes_L", "order_X", "taken_G"])  # fmt: skip
@dataclass(frozen=True)
class Round:
    """The rows of one round.

    Each row has a token (``token_X``) and the number of the token's choice (``choice_X``), both int32. ``valid_X``,
    bool, is False for rows without an assignment. ``row_US`` is the row of every assignment, X if it is not in this
    round.

    The ragged layout has three more: ``sizes_L`` counts the rows of each expert, ``order_X`` sorts the rows by their
    tokens, and ``taken_G`` counts the rows of each block of 128 tokens.
    """

    token_X: jax.Array
    choice_X: jax.Array
    valid_X: jax.Array
    row_US: jax.Array
    sizes_L: jax.Array | None = None
    order_X: jax.Array | None = None
    taken_G: jax.Array | None = None


def queues(chosen_US: jax.Array, num_experts: int, local: int) -> Queues:
    """Queues of this device's ``local`` experts, from the int32 choices ``[U, S]`` of this device's own tokens.

    Every device sorts the assignments that it sends. The parts that a device receives are then sorted already, and only
    their lengths are needed. (Sorting everything after it was received would take P times as long.)
    """
    flat_Q = chosen_US.reshape(-1)
    order_Q = jnp.argsort(flat_Q, stable=True).astype(jnp.int32)
    count_E = jnp.sum(flat_Q[:, None] == jnp.arange(num_experts), axis=0, dtype=jnp.int32)
    first_E = jnp.cumsum(count_E) - count_E
    turn_US = (jnp.argsort(order_Q).astype(jnp.int32) - first_E[flat_Q]).reshape(chosen_US.shape)

    message = order_Q, flat_Q, turn_US.reshape(-1), count_E, first_E
    ends = [sum(x.size for x in message[: i + 1]) for i in range(len(message) - 1)]
    order_PQ, *wanted, count_PE, first_PE = jnp.split(gather(jnp.concatenate(message)[None], "expert", 0), ends, axis=1)
    chosen_US, turn_US = (x.reshape(-1, chosen_US.shape[1]) for x in wanted)
    offset = axis_index("expert") * local
    count_LP, first_LP = (jax.lax.dynamic_slice_in_dim(x, offset, local, axis=1).T for x in (count_PE, first_PE))
    end_LP = jnp.cumsum(count_LP.reshape(-1)).reshape(count_LP.shape)
    start_LP = end_LP - count_LP
    expert_US = chosen_US - offset
    expert_US = jnp.where((expert_US >= 0) & (expert_US < local), expert_US, local)
    P = order_PQ.shape[0]
    sent_PUS = expert_US.reshape(P, -1, expert_US.shape[1])
    # A sum over the few experts replaces a table look-up, which is slow on accelerators.
    place_PUS = turn_US.reshape(sent_PUS.shape)
    for e in range(local):
        place_PUS = place_PUS + jnp.where(sent_PUS == e, start_LP[e][:, None, None], 0)
    return Queues(order_PQ, expert_US, place_PUS.reshape(turn_US.shape), first_LP, start_LP, end_LP)


def round_size(assignments: int, local: int, shards: int, layout: Experts, tokens: int) -> int:
    """The number of rows of a round: those that an even load fills, and some slack.

    In the capacity layout it is a multiple of ``local``, and no expert has more rows than there are ``tokens``.
    """
    experts = 1 if layout == "ragged" else local
    even = -(-assignments // (shards * experts))
    slack = -(-int(even * _SLACK + 1) // _MULTIPLE[layout]) * _MULTIPLE[layout]
    return min(slack, assignments if layout == "ragged" else tokens) * experts


def rounds(queue: Queues, size: int, layout: Experts) -> jax.Array:
    """The number of rounds until every assignment was computed, an int32 scalar."""
    if layout == "ragged":
        return -(-queue.end_LP[-1, -1] // size)
    longest = jnp.max(queue.end_LP[:, -1] - queue.start_LP[:, 0])
    return -(-longest // (size // queue.end_LP.shape[0]))


def round_of(queue: Queues, number: jax.Array, size: int, layout: Experts) -> Round:
    """The rows of round ``number``.

    The ragged layout takes the next ``size`` positions; the capacity layout takes the next positions of every expert.
    """
    L, row_X = queue.end_LP.shape[0], jnp.arange(size, dtype=jnp.int32)
    start_L, end_L = queue.start_LP[:, 0], queue.end_LP[:, -1]
    own_US = queue.expert_US < L
    if layout == "ragged":
        place_X = number * size + row_X
        valid_X = place_X < end_L[-1]
        sizes_L = jnp.clip(end_L - number * size, 0, size) - jnp.clip(start_L - number * size, 0, size)
        row_US = queue.place_US - number * size
        inside_US = (row_US >= 0) & (row_US < size)
    else:
        capacity = size // L
        place_X = start_L[row_X // capacity] + number * capacity + row_X % capacity
        valid_X = place_X < end_L[row_X // capacity]
        expert_US = jnp.minimum(queue.expert_US, L - 1)
        turn_US = queue.place_US - start_L[expert_US] - number * capacity
        row_US = expert_US * capacity + turn_US
        inside_US = (turn_US >= 0) & (turn_US < capacity)
    token_X, choice_X = _assignment(queue, jnp.where(valid_X, place_X, 0))
    row_US = jnp.where(inside_US & own_US, row_US, size)
    if layout == "capacity":
        return Round(token_X, choice_X, valid_X, row_US)
    blocks = -(-row_US.shape[0] // _BLOCK)
    block_X = jnp.where(valid_X, token_X // _BLOCK, blocks)
    _, order_X = jax.lax.sort((block_X, row_X), num_keys=1, is_stable=False)
    taken_G = jnp.sum(block_X[:, None] == jnp.arange(blocks), axis=0, dtype=jnp.int32)
    return Round(token_X, choice_X, valid_X, row_US, sizes_L, order_X, taken_G)


def _assignment(queue: Queues, place_X: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Token and choice, int32 ``[X]`` each, of the assignments at the positions ``place_X``."""
    P, Q = queue.order_PQ.shape
    S = queue.expert_US.shape[1]
    part_X = jnp.sum(place_X[:, None] >= queue.end_LP.reshape(-1), axis=1, dtype=jnp.int32)  # parts that end before it
    part_X = jnp.minimum(part_X, queue.end_LP.size - 1)  # when all queues are empty
    shift = (queue.first_LP - queue.start_LP).reshape(-1)
    sender_X = part_X % P
    index_X = jnp.clip(place_X + shift[part_X], 0, Q - 1)
    flat_X = queue.order_PQ.reshape(-1)[sender_X * Q + index_X]
    return sender_X * (Q // S) + flat_X // S, flat_X % S


@jax.custom_vjp
def spread(x_UD: jax.Array, rows: Round) -> jax.Array:
    """The token of every row, ``[X, D]``. Its gradient is ``collect``.

    A row without a token gets zeros, because the gradients of the matrices read it. In the ragged layout such rows lie
    behind all groups, and no product or sum reads them.
    """
    x_XD = x_UD[rows.token_X]
    return x_XD if rows.sizes_L is not None else jnp.where(rows.valid_X[:, None], x_XD, 0)


@jax.custom_vjp
def collect(y_XD: jax.Array, rows: Round) -> jax.Array:
    """The sum of every token's rows, ``[U, D]``, in float32. Its gradient is ``spread``.

    A scatter would add the rows one after the other. A TPU instead sums the rows of a block of tokens by a product with
    ones and zeros, which reads each row once. On other platforms each token reads its rows; a row that is not in this
    round counts as zero.
    """
    if rows.order_X is not None and rows.taken_G is not None:
        lane_X = rows.token_X[rows.order_X] % _BLOCK
        ones_XG = (lane_X[:, None] == jnp.arange(_BLOCK)).astype(y_XD.dtype)
        return grouped_outer(ones_XG, y_XD[rows.order_X], rows.taken_G).reshape(-1, y_XD.shape[1])[
            : rows.row_US.shape[0]
        ]
    size, total_UD = y_XD.shape[0], jnp.float32(0)
    for choice in range(rows.row_US.shape[1]):
        row_U = rows.row_US[:, choice]
        part_UD = jnp.where((row_U < size)[:, None], y_XD[jnp.minimum(row_U, size - 1)], 0)
        total_UD = total_UD + part_UD.astype(jnp.float32)
    return total_UD


@jax.custom_vjp
def row_weights(weight_US: jax.Array, rows: Round) -> jax.Array:
    """The weight of every row's assignment, ``[X]``; 0 for a row without an assignment."""
    return jnp.where(rows.valid_X, weight_US[rows.token_X, rows.choice_X], 0)


def _weights_back(rows: Round, dweight_X: jax.Array) -> tuple[jax.Array, None]:
    size = dweight_X.shape[0]
    return jnp.where(rows.row_US < size, dweight_X[jnp.minimum(rows.row_US, size - 1)], 0), None


spread.defvjp(
    lambda x, rows: (spread(x, rows), (rows, jnp.zeros((0,), x.dtype))),
    lambda kept, dy: (collect(dy, kept[0]).astype(kept[1].dtype), None),
)
collect.defvjp(
    lambda y, rows: (collect(y, rows), (rows, jnp.zeros((0,), y.dtype))),
    lambda kept, dx: (spread(dx.astype(kept[1].dtype), kept[0]), None),
)
row_weights.defvjp(lambda weight, rows: (row_weights(weight, rows), rows), _weights_back)
