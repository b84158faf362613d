"""Sampled tokens follow the distribution; log-probabilities are the softmax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.engines.embedded.sampling import sample, uniforms


def draw(logits_BV: np.ndarray, temperature_B: np.ndarray, uniform_B: np.ndarray, width: int = 32):
    """``sample`` of logits cut into groups of ``width`` tokens."""
    B, V = logits_BV.shape
    padded = np.pad(logits_BV, ((0, 0), (0, -V % width)), constant_values=-np.inf)
    return _sample(padded.reshape(B, -1, width).swapaxes(0, 1), temperature_B, uniform_B)


_sample = jax.jit(sample)


@pytest.mark.parametrize("vocabulary", [1, 2, 37, 300, 600])
def test_sampling_inverts_the_distribution_function(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    logits = (3 * rng.standard_normal((256, vocabulary))).astype(np.float32)
    temperature = rng.choice([0.0, 0.5, 0.7, 1.0, 2.0], 256).astype(np.float32)
    uniform = rng.random(256, np.float32)
    token, logprob = map(np.asarray, draw(logits, temperature, uniform))

    scaled = logits.astype(np.float64) / np.where(temperature == 0, 1, temperature)[:, None]
    scaled -= scaled.max(axis=-1, keepdims=True)
    exact = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    chosen = exact[np.arange(256), token]
    np.testing.assert_allclose(logprob, chosen, atol=1e-5)
    greedy = temperature == 0
    np.testing.assert_array_equal(token[greedy], logits[greedy].argmax(axis=-1))
    # The uniform number lies in the token's own interval of the distribution function, up to float32.
    upper = np.cumsum(np.exp(exact), axis=-1)[np.arange(256), token]
    inside = (uniform >= upper - np.exp(chosen) - 2e-6) & (uniform <= upper + 2e-6)
    assert inside[~greedy].all()


def test_frequencies_match_probabilities() -> None:
    logits = np.random.default_rng(0).standard_normal(20).astype(np.float32) * 1.5
    count = 40_000
    uniform = np.asarray(uniforms(jnp.full(1, 7), jnp.arange(count)[None])[0])
    token, _ = draw(np.broadcast_to(logits, (count, 20)), np.full(count, 0.8, np.float32), uniform)
    probability = np.exp(logits / 0.8) / np.exp(logits / 0.8).sum()
    observed = np.bincount(np.asarray(token), minlength=20)
    chi_square = ((observed - count * probability) ** 2 / (count * probability)).sum()
    assert chi_square < 43.8  # 99.9 % quantile at 19 degrees of freedom


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_an_impossible_token_is_never_drawn(uniform: float) -> None:
    for possible in ([0], [599], [3, 7, 300], [31, 32]):
        logits = np.full((1, 600), -np.inf, np.float32)
        logits[0, possible] = 1.0
        token, logprob = draw(logits, np.ones(1, np.float32), np.full(1, uniform, np.float32))
        assert int(token[0]) in possible
        np.testing.assert_allclose(logprob, -np.log(len(possible)), atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-5, 1e-9, 1e-30, 1e-37, 5e-324])
def test_a_temperature_close_to_zero_takes_the_likeliest_token(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = (30 * rng.standard_normal((64, 300))).astype(np.float32)
    token, logprob = draw(logits, np.full(64, temperature, np.float32), rng.random(64, np.float32))
    np.testing.assert_array_equal(token, logits.argmax(axis=-1))
    assert np.isfinite(logprob).all() and (logprob <= 0).all()


def test_random_numbers_depend_on_seed_and_position_alone() -> None:
    many = np.asarray(uniforms(jnp.array([3, 4, 3]), jnp.arange(8)[None] + jnp.array([[0], [0], [4]])))
    np.testing.assert_array_equal(many[0, 4:], many[2, :4])
    assert len(np.unique(many[:2])) == 16
