"""Adapters on the decoder: mixed batches, algebra, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from forward import hidden, noisy_decoder, noisy_lora

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import TARGETS, LoRA, init_lora, merge, pad_rank, row_gates, select, stack, target_shapes

CONFIG = DecoderConfig(97, 32, 2, 4, 2, 16, 48, tie_embeddings=True)
SOME = ("q_proj", "o_proj", "down_proj")


@pytest.fixture
def decoder(rng):
    return noisy_decoder(rng, CONFIG)


def noisy(rng, rank, alpha, targets=TARGETS, num_adapters=1) -> LoRA:
    return noisy_lora(rng, CONFIG, rank, alpha, targets, num_adapters)


def with_dense_weights(decoder, deltas):
    """The same decoder with W' = W + delta, formed in numpy: what adapters must be equal to."""
    changed = nnx.merge(*nnx.split(decoder))
    for target, value in deltas.items():
        changed.layers[target] = nnx.Param(jnp.asarray(np.asarray(decoder.layers[target][...]) + value, jnp.float32))
    return changed


def product(lora):
    """scale · a b of a single adapter, float64 ``[L, in, out]`` by target."""
    return {
        target: float(lora.scale[0]) * np.asarray(pair["a"][0], np.float64) @ np.asarray(pair["b"][0], np.float64)
        for target, pair in lora.weights.items()
    }


@pytest.mark.parametrize("targets", [SOME, TARGETS])
def test_an_adapter_equals_changed_weights(targets, decoder, rng):
    lora, tokens = noisy(rng, 4, 6.0, targets), rng.integers(0, 97, (2, 13))
    expected = hidden(with_dense_weights(decoder, product(lora)), tokens)
    assert np.abs(expected - hidden(decoder, tokens)).max() > 0.1
    np.testing.assert_allclose(hidden(decoder, tokens, lora), expected, atol=2e-5)


@pytest.mark.parametrize("rank", [4, 48], ids=["dense", "gathered"])
def test_several_adapters_in_a_batch_equal_one_by_one(rank, decoder, rng):
    adapters = [noisy(rng, rank, float(rng.uniform(-8, 8)), SOME) for _ in range(3)]
    tokens, ids = rng.integers(0, 97, (6, 13)), np.array([2, 0, -1, 1, 0, 2])
    mixed = hidden(decoder, tokens, stack(adapters), jnp.asarray(ids, jnp.int32))
    for row, index in enumerate(ids):
        alone = hidden(decoder, tokens[row : row + 1], *([adapters[index]] if index >= 0 else []))
        np.testing.assert_allclose(mixed[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("rank", [4, 48], ids=["dense", "gathered"])
def test_gradients_reach_only_the_adapters_that_rows_use(rank, decoder, rng):
    lora, tokens = noisy(rng, rank, 4.0, SOME, num_adapters=3), rng.integers(0, 97, (2, 13))

    graphdef, params = nnx.split(decoder)

    @jax.jit  # the model is an argument: closed over, its weights would be folded as constants
    def gradient(weights, params, scale, tokens, ids):
        def loss(weights):
            return jnp.sum(hidden(nnx.merge(graphdef, params), tokens, LoRA(weights, scale), ids) ** 3)

        return jax.grad(loss)(weights)

    grads = gradient(lora.weights, params, lora.scale, tokens, jnp.array([2, -1]))
    alone = gradient(select(lora, 2).weights, params, lora.scale[2:], tokens[:1], jnp.array([0]))
    for target, pair in grads.items():
        for part, grad in pair.items():
            assert not np.asarray(grad[:2]).any()
            expected = np.asarray(alone[target][part][0])
            np.testing.assert_allclose(grad[2], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_merge_is_the_exact_weighted_sum(decoder, rng):
    adapters = [noisy(rng, rank, alpha, SOME) for rank, alpha in ((2, 5.0), (4, 3.0), (3, -7.0))]
    weights = rng.uniform(-1, 1, 3)
    merged = merge(adapters, list(weights))
    assert (merged.rank, merged.num_adapters, merged.targets) == (9, 1, SOME)
    products = [product(lora) for lora in adapters]
    total = {t: sum(w * p[t] for w, p in zip(weights, products, strict=True)) for t in SOME}
    for target, value in product(merged).items():
        np.testing.assert_allclose(value, total[target], atol=1e-6)
    tokens = rng.integers(0, 97, (2, 13))
    np.testing.assert_allclose(
        hidden(decoder, tokens, merged), hidden(with_dense_weights(decoder, total), tokens), atol=2e-5
    )


def test_a_fresh_adapter_is_the_base_and_starts_as_peft_does(decoder, rng):
    lora = init_lora(CONFIG, 8, 16.0, num_adapters=2, key=jax.random.key(int(rng.integers(2**31))))
    tokens = rng.integers(0, 97, (2, 13))
    np.testing.assert_array_equal(hidden(decoder, tokens, lora, jnp.array([0, 1])), hidden(decoder, tokens))
    np.testing.assert_array_equal(lora.scale, [2.0, 2.0])
    for target, (fan_in, fan_out) in target_shapes(CONFIG).items():
        a, b = lora.weights[target]["a"], lora.weights[target]["b"]
        assert a.shape == (2, 2, fan_in, 8) and b.shape == (2, 2, 8, fan_out)
        assert 0.9 < float(jnp.abs(a).max()) * fan_in**0.5 <= 1  # torch's kaiming_uniform_(a=√5): U(±1/√in)
        assert len(np.unique(a)) > a.size * 0.99


def test_padding_the_rank_changes_nothing_and_allows_stacking(decoder, rng):
    small, large = noisy(rng, 2, 3.0), noisy(rng, 5, 3.0)
    tokens = rng.integers(0, 97, (2, 13))
    padded = pad_rank(small, 5)
    np.testing.assert_allclose(hidden(decoder, tokens, padded), hidden(decoder, tokens, small), atol=1e-5)
    both = stack([padded, large])
    jax.tree.map(np.testing.assert_array_equal, select(both, 1), large)
    with pytest.raises(UserError, match=r"ranks \[2, 5\]: pad_rank"):
        stack([small, large])


def test_wrong_use_is_refused_by_name(rng):
    lora, other = noisy(rng, 2, 3.0, SOME), noisy(rng, 2, 3.0, ("q_proj",))
    with pytest.raises(UserError, match="adapter 1 has targets"):
        merge([lora, other], [0.5, 0.5])
    with pytest.raises(UserError, match="1 adapters and 2 weights"):
        merge([lora], [0.5, 0.5])
    with pytest.raises(UserError, match="single adapters"):
        merge([stack([lora, lora])], [1.0])
    with pytest.raises(UserError, match="adapter 1 is not among the 1"):
        select(lora, 1)
    with pytest.raises(UserError, match="rank 2 to the smaller 1"):
        pad_rank(lora, 1)
    with pytest.raises(UserError, match="'embed'"):
        init_lora(CONFIG, 2, 4.0, ("embed",))
    with pytest.raises(UserError, match="rank 0"):
        init_lora(CONFIG, 0, 4.0)
    with pytest.raises(UserError, match="adapter_ids must say"):
        row_gates(stack([lora, lora]), None, 3)
