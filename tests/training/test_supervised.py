"""Supervised training: its loss against one computed row by row, and that it teaches."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.training.supervised import Demonstration, SupervisedConfig, batches, token_losses, train_supervised

SHAPE = DecoderConfig(
    vocab_size=17, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=48
)


def random_demonstrations(rng, count):
    """About half of the tokens trained. There are three lengths: each is compiled."""
    for length in itertools.islice(itertools.cycle((5, 38, 23)), count):
        tokens = tuple(int(token) for token in rng.integers(1, 17, size=length))
        yield Demonstration(tokens, tuple(bool(x) for x in [False, True, *rng.integers(0, 2, size=length - 2)]))


@pytest.mark.parametrize("context_weight", [0.25, *(pytest.param(w, marks=pytest.mark.slow) for w in (0.0, 1.0))])
def test_batched_loss_equals_row_by_row_in_float64(context_weight):
    rng = np.random.default_rng()
    shown = list(random_demonstrations(rng, 5))
    decoder = Decoder(SHAPE, nnx.Rngs(int(rng.integers(1 << 30))))
    (batch,) = batches(shown, 8)
    loss, nll = token_losses(decoder, *map(jnp.asarray, batch), context_weight)
    total, plain = [], []
    for demonstration in shown:
        row = jnp.asarray([demonstration.tokens])
        ones = jnp.ones_like(row)
        hidden = decoder(row, jnp.arange(row.shape[1])[None], ones, 0 * ones)
        logits = np.asarray(decoder.logits(hidden)[0], np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for t in range(1, len(demonstration.tokens)):
            weight = 1.0 if demonstration.trained[t] else context_weight
            total.append((weight, -logprobs[t - 1, demonstration.tokens[t]]))
            plain += [-logprobs[t - 1, demonstration.tokens[t]]] if demonstration.trained[t] else []
    expected = sum(w * x for w, x in total) / sum(w for w, _ in total)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    np.testing.assert_allclose(float(nll), np.mean(plain), rtol=1e-5)


@pytest.mark.parametrize("context_weight", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
def test_it_learns_to_copy_in_the_order_given(context_weight):
    rng = np.random.default_rng(0)
    words = rng.integers(1, 17, size=(2000, 1))
    shown = [Demonstration((int(w), 0, int(w)), (False, False, True)) for (w,) in words]
    losses = []
    before = Decoder(SHAPE, nnx.Rngs(0))
    first = np.asarray(before.embed[...])
    settings = SupervisedConfig(rows=20, learning_rate=1e-2, context_weight=context_weight)
    train_supervised(before, shown, settings, lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == list(range(1, 101))
    assert losses[-1][1] < 0.2 < 2.0 < losses[0][1]
    np.testing.assert_array_equal(np.asarray(before.embed[...]), first)  # the decoder given is not changed


def test_a_loss_that_is_not_finite_stops_with_its_step():
    decoder = Decoder(SHAPE, nnx.Rngs(0))
    decoder.embed[...] = decoder.embed[...] * jnp.nan
    with pytest.raises(FloatingPointError, match="supervised step 1: loss is nan"):
        train_supervised(decoder, [Demonstration((1, 2), (False, True))], SupervisedConfig())
