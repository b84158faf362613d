"""The mixture of experts against every expert computed for every token, by plain autodiff."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.models.config import DecoderConfig
from trace_jax.models.dispatch import queues, round_of, round_size, rounds
from trace_jax.models.execution import Execution
from trace_jax.models.experts import mixture, route
from trace_jax.models.kernels.grouped import grouped_matmul, grouped_matmul_trained

CONFIG = DecoderConfig(
    97,
    16,
    2,
    4,
    2,
    8,
    0,
    model_type="qwen3_moe",
    num_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    norm_topk_prob=True,
)
TARGETS = ("gate_proj", "up_proj", "down_proj")


def _inputs(rng, tokens, adapters, rank=3, skew=0.0):
    D, F, E = CONFIG.hidden_size, CONFIG.moe_intermediate_size, CONFIG.num_experts
    layer = {name: rng.normal(0, 0.3, (E, F, D) if name == "down_proj" else (E, D, F)) for name in TARGETS}
    layer["router"] = rng.normal(0, 1, (D, E))
    h = rng.normal(0, 1, (tokens, D))
    if skew:  # the first feature decides: nearly every token then wants experts 0 and 1
        h[:, 0], layer["router"][0] = 1, skew * np.array([2, 1, *[0] * (E - 2)])
    pairs = {
        name: {"a": rng.normal(0, 0.3, (adapters, E, layer[name].shape[1], rank)),
               "b": rng.normal(0, 0.3, (adapters, E, rank, layer[name].shape[2]))}
        for name in (TARGETS if adapters else ())
    }  # fmt: skip
    gates = np.zeros((tokens, adapters))
    for u, own in enumerate(rng.integers(-1, adapters, tokens) if adapters else ()):
        gates[u, own] = 0.7 if own >= 0 else gates[u, own]
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (h, layer, pairs, gates))


def _dense(h, layer, pairs, gates):
    """All experts on all tokens."""
    chosen, weight = route(h, layer["router"], CONFIG)
    dot = partial(jnp.einsum, precision="highest")

    def project(x, target):  # x [E, U, in]
        out = dot("eui,eio->euo", x, layer[target])
        for index in range(gates.shape[1] if pairs else 0):
            a, b = pairs[target]["a"][index], pairs[target]["b"][index]
            out += gates[None, :, index, None] * dot("eur,ero->euo", dot("eui,eir->eur", x, a), b)
        return out

    x = jnp.broadcast_to(h, (CONFIG.num_experts, *h.shape))
    y = project(jax.nn.silu(project(x, "gate_proj")) * project(x, "up_proj"), "down_proj")
    share = jnp.sum(jax.nn.one_hot(chosen, CONFIG.num_experts) * weight[..., None], axis=1)
    return dot("eud,ue->ud", y, share)


@pytest.mark.parametrize("layout", ["ragged", "capacity"])
@pytest.mark.parametrize(
    ("adapters", "skew"),
    [
        pytest.param(0, 0.0, id="0-even"),
        pytest.param(3, 9.0, id="3-uneven"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(0, 9.0), (1, 0.0), (1, 9.0), (3, 0.0)]),
    ],
)
def test_mixture_and_its_gradients_equal_the_dense_computation(layout, adapters, skew, rng):
    h, layer, pairs, gates = _inputs(rng, 70, adapters, skew=skew)
    execution = Execution(experts=layout)
    chosen, _ = route(h, layer["router"], CONFIG)
    queue = queues(chosen, CONFIG.num_experts, CONFIG.num_experts)
    size = round_size(chosen.size, CONFIG.num_experts, 1, layout, 70)
    if skew and layout == "capacity":
        assert int(rounds(queue, size, layout)) > 1
    pull = jnp.asarray(rng.normal(size=h.shape), jnp.float32)

    def loss(function, h, pairs):
        y = function(h, pairs)
        return jnp.sum(y * pull), y

    def ours(h, pairs):
        return mixture(h, None, layer, pairs, gates if adapters else None, CONFIG, execution)

    def theirs(h, pairs):
        return _dense(h, layer, pairs, gates)

    found, expected = (jax.jit(jax.grad(partial(loss, f), (0, 1), has_aux=True))(h, pairs) for f in (ours, theirs))
    for leaf, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("layout", ["ragged", "capacity"])
def test_padding_takes_no_rows_and_gets_zeros(layout, rng):
    h, layer, pairs, gates = _inputs(rng, 40, 1)
    real = jnp.asarray(rng.random(40) < 0.5)
    y = mixture(h, real, layer, pairs, gates, CONFIG, Execution(experts=layout))
    np.testing.assert_array_equal(y[~real], 0)
    alone = mixture(h[real], None, layer, pairs, gates[real], CONFIG, Execution(experts=layout))
    np.testing.assert_allclose(y[real], alone, atol=1e-5)


@pytest.mark.parametrize("layout", ["ragged", "capacity"])
def test_rounds_hold_every_assignment_once(layout, rng):
    """Whatever the load and the size of a round."""
    E, U, S, size = 5, 23, 2, 10
    skewed = rng.choice(E, (U, S), p=[0.6, 0.3, 0.1, 0, 0])
    queue = queues(jnp.asarray(np.where(rng.random((U, S)) < 0.1, E, skewed), jnp.int32), E, E)
    chosen, seen = np.asarray(queue.expert_US), []
    for number in range(int(rounds(queue, size, layout))):
        rows = round_of(queue, jnp.int32(number), size, layout)
        expert_X = np.repeat(np.arange(E), rows.sizes_L if layout == "ragged" else size // E)
        for x in np.flatnonzero(rows.valid_X):
            u, s = int(rows.token_X[x]), int(rows.choice_X[x])
            assert expert_X[x] == chosen[u, s] and rows.row_US[u, s] == x
            seen.append((u, s))
        assert np.sum(np.asarray(rows.row_US) < size) == np.sum(rows.valid_X)
    assert sorted(seen) == [tuple(pair) for pair in np.argwhere(chosen < E)]


def test_grouped_products_equal_one_product_a_group(rng):
    sizes, E, K, N = [4, 0, 7, 1], 4, 6, 5
    x, w, dy = rng.normal(size=(14, K)), rng.normal(size=(E, K, N)), rng.normal(size=(14, N))
    groups = np.split(np.arange(12), np.cumsum(sizes)[:-1])
    y, dx, dw = np.zeros((14, N)), np.zeros((14, K)), np.zeros((E, K, N))
    for e, rows in enumerate(groups):
        y[rows], dx[rows], dw[e] = x[rows] @ w[e], dy[rows] @ w[e].T, x[rows].T @ dy[rows]
    x, w, dy = (jnp.asarray(value, jnp.float32) for value in (x, w, dy))
    for function, slope in ((grouped_matmul, 0 * dw), (grouped_matmul_trained, dw)):
        out, transpose = jax.vjp(lambda x, w, f=function: f(x, w, jnp.asarray(sizes)), x, w)
        np.testing.assert_allclose(out, y, atol=1e-5)
        for found, expected in zip(transpose(dy), (dx, slope), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
