"""A mixture of experts with frozen base weights. The result is exact for any load; the memory is that of an even load.

The tokens of all devices along the mesh axis ``expert`` are gathered. Every device computes the outputs of its own
experts, and the sums are scattered back. On a torus this moves as many bytes as sending each token to its eight
experts, and the shapes do not depend on the router. A device works through its experts' queues in rounds of fixed size:
no token is ever dropped, and an uneven load takes more rounds, not more memory.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from trace_jax.models.config import DecoderConfig
from trace_jax.models.dispatch import Queues, Round, collect, queues, round_of, round_size, rounds, row_weights, spread
from trace_jax.models.execution import Execution, Experts
from trace_jax.models.kernels.grouped import grouped_matmul, grouped_matmul_trained
from trace_jax.parallel.collectives import axis_size, gather, reduce_sum, sum_scatter, vary
from trace_jax.parallel.mesh import AXES

Pairs = dict[str, dict[str, jax.Array]]  # target → {"a": [A, E, in, R], "b": [A, E, R, out]}
Weights = dict[str, jax.Array]  # gate_proj, up_proj [E, D, F], down_proj [E, F, D]


def route(h_UD: jax.Array, router_DE: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """The experts of every token, int32 ``[U, S]``, and their weights, float32 ``[U, S]``.

    The router's product and softmax are computed in float32.
    """
    logits_UE = jnp.einsum("ud,de->ue", h_UD.astype(jnp.float32), router_DE, precision=jax.lax.Precision.HIGHEST)
    weight_US, chosen_US = jax.lax.top_k(jax.nn.softmax(logits_UE, axis=-1), config.num_experts_per_tok)
    if config.norm_topk_prob:
        weight_US = weight_US / jnp.sum(weight_US, axis=-1, keepdims=True)
    return chosen_US, weight_US


def mixture(
    h_UD: jax.Array,
    real_U: jax.Array | None,
    layer: Weights,
    pairs: Pairs,
    gates_UA: jax.Array | None,
    config: DecoderConfig,
    execution: Execution,
) -> jax.Array:
    """Σ_s weight_s · expert_s(h), ``[U, D]``.

    Tokens whose ``real_U`` is False are padding. Padding gets zeros and is sent to no expert, because all of it would
    go to the same few experts. ``gates_UA``, float32, holds the scale of the adapter that a token uses, and 0 for all
    other adapters (``lora.row_gates``).
    """
    chosen_US, weight_US = route(h_UD, layer["router"], config)
    if real_U is not None:
        chosen_US = jnp.where(real_U[:, None], chosen_US, config.num_experts)
    if gates_UA is None:
        gates_UA, pairs = jnp.zeros((h_UD.shape[0], 0), jnp.float32), {}
    weights = {name: layer[name] for name in ("gate_proj", "up_proj", "down_proj")}
    local, layout = weights["gate_proj"].shape[0], execution.experts
    queue = queues(chosen_US, config.num_experts, local)
    h = gather(h_UD, "expert", 0)
    both = gather(jnp.concatenate([weight_US, gates_UA], axis=1), "expert", 0)  # one message for both
    weight, gates = both[:, : weight_US.shape[1]], both[:, weight_US.shape[1] :]
    size = round_size(weight.size, local, axis_size("expert"), layout, h.shape[0])
    # Everything varies over every axis from here on, so that the loop's state has one type; sums come at the end.
    y_UD = _experts(size, layout, *vary((h, weight, gates, pairs, weights, queue), AXES))
    return sum_scatter(reduce_sum(y_UD, "tensor"), "expert", 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _experts(
    size: int,
    layout: Experts,
    h_UD: jax.Array,
    weight_US: jax.Array,
    gates_UA: jax.Array,
    pairs: Pairs,
    weights: Weights,
    queue: Queues,
) -> jax.Array:
    """The outputs of this device's experts for every token, ``[U, D]`` in the dtype of ``h``, summed in float32."""

    def body(number: jax.Array, total_UD: jax.Array) -> jax.Array:
        return total_UD + _round(round_of(queue, number, size, layout), h_UD, weight_US, pairs, gates_UA, weights)

    zero_UD = vary(jnp.zeros(h_UD.shape, jnp.float32), AXES)
    return jax.lax.fori_loop(0, rounds(queue, size, layout), body, zero_UD).astype(h_UD.dtype)


def _forward(size: int, layout: Experts, *arguments: Any) -> tuple[jax.Array, tuple]:
    return _experts(size, layout, *arguments), arguments


def _backward(size: int, layout: Experts, kept: tuple, dy_UD: jax.Array) -> tuple:
    """The gradient, round by round. The hidden layer of a round is computed again; the gradients of rounds add up."""
    h_UD, weight_US, gates_UA, pairs, weights, queue = kept
    inputs = h_UD, weight_US, pairs
    dy_UD = dy_UD.astype(jnp.float32)

    def body(number: jax.Array, total: Any) -> Any:
        rows = round_of(queue, number, size, layout)
        _, transpose = jax.vjp(lambda h, weight, pairs: _round(rows, h, weight, pairs, gates_UA, weights), *inputs)
        return jax.tree.map(lambda x, dx: x + dx.astype(jnp.float32), total, transpose(dy_UD))

    zero = vary(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), inputs), AXES)
    total = jax.lax.fori_loop(0, rounds(queue, size, layout), body, zero)
    dh_UD, dweight_US, dpairs = jax.tree.map(lambda x, like: x.astype(like.dtype), total, inputs)
    return dh_UD, dweight_US, None, dpairs, None, None


_experts.defvjp(_forward, _backward)


def _round(
    rows: Round, h_UD: jax.Array, weight_US: jax.Array, pairs: Pairs, gates_UA: jax.Array, weights: Weights
) -> jax.Array:
    """One round's share of the sum, float32 ``[U, D]``."""
    x_XD = spread(h_UD, rows)
    gates_XA = gates_UA[rows.token_X].astype(h_UD.dtype)

    def project(x: jax.Array, target: str) -> jax.Array:
        out = grouped_matmul(x, weights[target], rows.sizes_L)
        return out + _delta(x, pairs[target], gates_XA, rows.sizes_L) if target in pairs else out

    inner_XF = jax.nn.silu(project(x_XD, "gate_proj")) * project(x_XD, "up_proj")
    # Weights are applied before the last product, so that their gradient does not need the output of that product.
    inner_XF = inner_XF * row_weights(weight_US, rows)[:, None].astype(inner_XF.dtype)
    return collect(project(inner_XF, "down_proj"), rows)


def _delta(x_XI: jax.Array, pair: dict[str, jax.Array], gates_XA: jax.Array, sizes_L: jax.Array | None) -> jax.Array:
    """scale · (x a) b with the adapter and the expert of every row.

    The ranks of all adapters are concatenated, and the gates set those of other adapters to zero.
    """
    a, b = pair["a"], pair["b"]
    A, E, fan_in, R = a.shape
    h = grouped_matmul_trained(x_XI, a.transpose(1, 2, 0, 3).reshape(E, fan_in, A * R), sizes_L)
    h = h * jnp.repeat(gates_XA, R, axis=1)
    return grouped_matmul_trained(h, b.transpose(1, 0, 2, 3).reshape(E, A * R, -1), sizes_L)
