"""The decoder against itself: packed == unpacked, shared prefix == repeated prefix.

That decoding with a cache equals this pass is a claim about the engine: see tests/engines.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from forward import hidden, hidden_rows, noisy_decoder

from trace_jax.models.attention import packed_mask
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import pooled

CONFIG = DecoderConfig(97, 32, 3, 4, 2, 16, 48, rope_theta=5e4, tie_embeddings=True)


@pytest.fixture
def decoder(rng):
    return noisy_decoder(rng, CONFIG)


def test_packed_sequences_equal_separate_ones(decoder, rng):
    lengths, T = [7, 1, 13, 5], 30
    sequences = [rng.integers(0, 97, n) for n in lengths]
    tokens, positions, segments = np.zeros((3, T), int)
    at = 0
    for segment, sequence in enumerate(sequences, start=1):
        span = slice(at, at + len(sequence))
        tokens[span], positions[span], segments[span] = sequence, np.arange(len(sequence)), segment
        at = span.stop
    tokens[at:] = rng.integers(0, 97, T - at)  # what padding holds must not matter
    row = [jnp.asarray(x)[None] for x in (tokens, positions, segments, np.zeros(T, int))]
    packed = np.asarray(hidden_rows(decoder, *row))[0]
    assert np.isfinite(packed).all()
    at = 0
    for sequence in sequences:
        np.testing.assert_allclose(packed[at : at + len(sequence)], hidden(decoder, sequence[None])[0], atol=1e-5)
        at += len(sequence)


def test_a_shared_prefix_equals_repeated_prefixes(decoder, rng):
    """One prompt, three completions that see it as their parent; then a second prompt with one completion."""
    groups = [
        (rng.integers(0, 97, prompt), [rng.integers(0, 97, n) for n in completions])
        for prompt, completions in ((9, (4, 6, 1)), (5, (3,)))
    ]
    tokens, positions, segments, parents, expected = [], [], [], [], []
    segment = 0
    for prompt, completions in groups:
        segment += 1
        parent = segment
        tokens += [*prompt]
        positions += range(len(prompt))
        segments += [parent] * len(prompt)
        parents += [0] * len(prompt)
        expected.append(hidden(decoder, prompt[None])[0])
        for completion in completions:
            segment += 1
            tokens += [*completion]
            positions += range(len(prompt), len(prompt) + len(completion))
            segments += [segment] * len(completion)
            parents += [parent] * len(completion)
            expected.append(hidden(decoder, np.concatenate([prompt, completion])[None])[0, len(prompt) :])
    pad = 4
    row = [jnp.asarray([[*x, *[0] * pad]]) for x in (tokens, positions, segments, parents)]
    shared = np.asarray(hidden_rows(decoder, *row))[0]
    np.testing.assert_allclose(shared[:-pad], np.concatenate(expected), atol=1e-5)


def test_the_mask_is_the_written_rule(rng):
    segments, parents = rng.integers(0, 4, (2, 3, 17))
    mask = np.asarray(packed_mask(jnp.asarray(segments), jnp.asarray(parents)))
    for b, q, k in np.ndindex(mask.shape):
        query, key, parent = segments[b, q], segments[b, k], parents[b, q]
        assert mask[b, q, k] == (k <= q and (query == key or (query > 0 and key > 0 and parent == key)))


def test_a_bfloat16_decoder_is_near_the_float32_one(decoder, rng):
    tokens = rng.integers(0, 97, (2, 16))
    graphdef, state = nnx.split(decoder)
    half = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    found = hidden(half, tokens)
    assert found.dtype == jnp.bfloat16 and half.logits(found).dtype == jnp.float32
    expected = np.asarray(decoder.logits(hidden(decoder, tokens)))
    error = np.abs(np.asarray(half.logits(found)) - expected).mean() / np.abs(expected).mean()
    assert error < 0.1


def test_pooled_is_the_mean_over_the_mask(rng):
    states, mask = rng.normal(size=(3, 8, 5)).astype(np.float32), rng.random((3, 8)) < 0.5
    mask[0], mask[1, 2] = False, True
    result = np.asarray(pooled(jnp.asarray(states), jnp.asarray(mask)))
    np.testing.assert_array_equal(result[0], 0)
    for b in (1, 2):
        np.testing.assert_allclose(result[b], states[b][mask[b]].mean(0) if mask[b].any() else 0, atol=1e-6)
