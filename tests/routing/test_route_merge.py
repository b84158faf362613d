"""A materialised decision against the dense sum of weight deltas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trace_jax.contract.routing import RouteDecision
from trace_jax.errors import UserError
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.routing.merge import materialise


@pytest.fixture(scope="module")
def adapters(config):
    found = {}
    for seed, (name, rank) in enumerate({"a": 2, "b": 3}.items()):
        lora = init_lora(config, rank, alpha=2.0 * rank + seed, key=jax.random.key(seed))
        filled = jax.tree.map(lambda x, s=seed: jax.random.normal(jax.random.key(s + 9), x.shape), lora.weights)
        found[name] = LoRA(filled, lora.scale)
    return found


def decided(**weights):
    return RouteDecision(conversation="c", router="gate", weights={}, adapters=weights)


def dense(lora, target):
    pair = lora.weights[target]
    a, b = np.asarray(pair["a"], np.float64), np.asarray(pair["b"], np.float64)
    return float(lora.scale[0]) * (a[0] @ b[0])


def test_merge_is_the_weighted_sum_of_deltas(adapters):
    merged = materialise(decided(a=0.7, b=0.2), adapters)
    assert merged is not None and merged.rank == 5
    for target in merged.targets:
        expected = 0.7 * dense(adapters["a"], target) + 0.2 * dense(adapters["b"], target)
        np.testing.assert_allclose(dense(merged, target), expected, atol=2e-5)


def test_single_adapter_is_itself_the_base_is_none_and_a_partial_weight_scales(adapters):
    assert materialise(decided(a=1.0), adapters) is adapters["a"]
    assert materialise(decided(), adapters) is None
    half = materialise(decided(a=0.5), adapters)
    np.testing.assert_allclose(dense(half, "q_proj"), 0.5 * dense(adapters["a"], "q_proj"), atol=1e-5)


def test_merged_adapter_acts_on_the_decoder_as_the_dense_weights_do(adapters, decoder, config):
    merged = materialise(decided(a=0.6, b=0.4), adapters)
    small = jax.tree.map(lambda x: x * 0.05, merged.weights)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 320, size=(1, 9)))
    ones, steps = jnp.ones_like(tokens), jnp.arange(9)[None]
    run = nnx.jit(lambda model, *given: model(tokens, steps, ones, 0 * ones, *given))
    found = run(decoder, LoRA(small, merged.scale), jnp.zeros(1, jnp.int32))
    graphdef, params = nnx.split(decoder)
    dense_model = nnx.merge(graphdef, jax.tree.map(jnp.copy, params))
    for target, pair in small.items():
        dense_model.layers[target][...] = dense_model.layers[target][...] + pair["a"][0] @ pair["b"][0]
    np.testing.assert_allclose(found, run(dense_model), atol=2e-4)


def test_unknown_adapter_is_refused(adapters):
    with pytest.raises(UserError, match="names adapter 'z', which is not loaded"):
        materialise(decided(z=1.0), adapters)
