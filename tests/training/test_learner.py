"""Whole updates of a tiny model against plain autodiff through all logits of one unbatched computation."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.telemetry.compiles import CompileLog
from trace_jax.training.learner import Learner
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.staleness import spot_check

MODEL = DecoderConfig(
    vocab_size=61, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=24,
    tie_embeddings=True)  # fmt: skip
DECODER = Decoder(MODEL)
FRESH = init_lora(MODEL, 4, 8.0)
LONGEST = 48


def _rows(rng, decoder, lora, lengths, noise=0.0, temperature=1.0):
    """Random episodes whose sampler is the model itself, disturbed by ``noise``."""
    rows = []
    for length in lengths:
        tokens = rng.integers(0, 61, length)
        trained = rng.random(length) < 0.4
        trained[0], trained[-1] = False, True
        logprobs = _logprobs(decoder, lora, tokens, temperature) + rng.normal(0, noise, length)
        rows.append(Sample(tokens, trained, np.where(trained, logprobs, 0.0), float(rng.normal())))
    return rows


def _logprobs(decoder, lora, tokens, temperature):
    """[T] log-probability of each token given those before it; the first gets 0. Differentiable in lora."""
    padded = np.pad(tokens, (0, LONGEST - len(tokens)))
    return _padded_logprobs(*nnx.split(decoder), lora, jnp.asarray(padded)[None], temperature)[: len(tokens)]


@partial(jax.jit, static_argnums=0)
def _padded_logprobs(graphdef, params, lora, ids, temperature):
    """All logits of one row. Padding comes after the tokens, so causality alone keeps it out of sight."""
    decoder = nnx.merge(graphdef, params)
    hidden = decoder(ids, jnp.arange(LONGEST)[None], jnp.ones_like(ids), jnp.zeros_like(ids), lora=lora)
    logp = jax.nn.log_softmax(decoder.logits(hidden)[0] / temperature)
    return jnp.concatenate([jnp.zeros(1), logp[jnp.arange(LONGEST - 1), ids[0, 1:]]])


def _perturbed(rng):
    """An adapter of rank 4 whose b is not zero, so that every gradient is."""
    return jax.tree.map(lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype) if x.ndim == 4 else x, FRESH)


def _learner(decoder, lora, temperature=1.0, **settings):
    config = GRPOConfig(rank=4, alpha=8.0, micro_batch_tokens=150, **settings)
    learner = Learner(decoder, config, temperature=temperature, seed=0)
    learner.weights = lora.weights
    return learner


@partial(jax.jit, static_argnums=0)
def _plain_loss(graphdef, params, weights, scale, ids, sampler, trained, advantage, share):
    """PPO clip at 0.2, 0.05 · k3 to the base, temperature 0.9; [rows, LONGEST], a mask and a share of each token."""

    def loss_of(weights):
        logp = jax.vmap(lambda row: _padded_logprobs(graphdef, params, LoRA(weights, scale), row[None], 0.9))(ids)
        base = jax.vmap(lambda row: _padded_logprobs(graphdef, params, None, row[None], 0.9))(ids)
        ratio, gap = jnp.exp(logp - sampler), base - logp
        surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
        return jnp.sum(share * trained * (0.05 * (jnp.exp(gap) - gap - 1) - surrogate))

    return jax.value_and_grad(loss_of)(weights)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_update_equals_plain_autodiff_and_adamw(loss_type):
    rng = np.random.default_rng()
    decoder, lora = DECODER, _perturbed(rng)
    rows = _rows(rng, decoder, lora, [9, 30, 17, 41, 12], noise=0.3, temperature=0.9)
    learner = _learner(decoder, lora, loss_type=loss_type, max_completion_length=20, beta=0.05, temperature=0.9)

    counts = np.array([r.trained_T.sum() for r in rows])
    share = {"grpo": 1 / (5 * counts), "dapo": np.full(5, 1 / counts.sum()), "dr_grpo": np.full(5, 1 / (5 * 20))}
    padded = [jnp.stack([jnp.pad(part, (0, LONGEST - len(part))) for part in parts]) for parts in zip(
        *((r.tokens_T, r.logprobs_T, r.trained_T) for r in rows), strict=True)]  # fmt: skip
    advantages, shares = jnp.array([r.advantage for r in rows])[:, None], jnp.asarray(share[loss_type])[:, None]
    loss, gradient = _plain_loss(*nnx.split(decoder), lora.weights, lora.scale, *padded, advantages, shares)
    transformation = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4, weight_decay=0.0))
    metrics = learner.update(rows)[0]
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    expected = optax.apply_updates(
        lora.weights, transformation.update(gradient, transformation.init(lora.weights), lora.weights)[0]
    )
    # Adam's first step is the sign of the gradient: entries with a gradient near zero may go either way.
    for ours, theirs, slope in zip(*map(jax.tree.leaves, (learner.weights, expected, gradient)), strict=True):
        clear = np.abs(slope) > 1e-5
        np.testing.assert_allclose(ours[clear], theirs[clear], rtol=0, atol=2e-6)


def test_mismatch_is_that_of_the_sampling_weights_in_every_iteration():
    rng = np.random.default_rng()
    decoder, lora = DECODER, _perturbed(rng)
    rows = _rows(rng, decoder, lora, [20, 25, 30, 14])
    learner = _learner(decoder, lora, num_iterations=3, learning_rate=1e-2)
    metrics = learner.update(rows)[0]
    assert metrics["mismatch/max_abs_delta"] < 1e-4 and metrics["mismatch/kl"] < 1e-6
    moved = [_logprobs(decoder, learner.lora(), r.tokens_T, 1.0) - r.logprobs_T for r in rows]
    assert max(float(jnp.abs(m[r.trained_T]).max()) for m, r in zip(moved, rows, strict=True)) > 1e-2  # it did learn
    single = _learner(decoder, lora).update(rows)[0]
    assert single["ratio/mean"] == pytest.approx(1.0, abs=1e-4)
    assert 0.0 < single["entropy"] <= np.log(61) + 1e-5


def _taught(rng, **settings):
    """A learner after three updates, one of them without a sample, and what it was after each, from 0 on."""
    learner = _learner(DECODER, _perturbed(rng), learning_rate=1e-2, **settings)
    versions = [learner.lora()]
    for lengths in ([20, 25], [], [14, 30]):
        learner.update(_rows(rng, DECODER, versions[-1], lengths))
        versions.append(learner.lora())
    return learner, versions


def _aged(rng, versions, lengths, current, stale):
    """Samples whose tokens the last version or one before has sampled; their sampler tells so much more."""
    for r in _rows(rng, DECODER, versions[-1], lengths):
        ages = np.where(r.trained_T, rng.integers(0, 4, len(r.tokens_T)), 0)
        of_version = np.stack([_logprobs(DECODER, lora, r.tokens_T, 1.0) for lora in versions[::-1]])
        told = of_version[ages, np.arange(len(ages))] + np.where(ages > 0, stale, current)
        yield replace(r, logprobs_T=np.where(r.trained_T, told, 0.0), staleness_T=ages)


@pytest.mark.parametrize("num_iterations", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_mismatch_is_that_of_the_weights_that_sampled(num_iterations):
    rng = np.random.default_rng()
    learner, versions = _taught(rng, max_staleness=3, num_iterations=num_iterations)
    rows = list(_aged(rng, versions, [20, 25, 30, 14], current=-0.2, stale=0.6))
    metrics = learner.update(rows)[0]
    current = sum((r.trained_T & (r.staleness_T == 0)).sum() for r in rows)
    some = spot_check(rows, 150)[1]
    stale = sum((r.staleness_T > 0).sum() for r in some)
    assert 0 < len(some) < len(rows) and current > 0

    def mean(values):
        return pytest.approx(np.average(values, weights=[current, stale]), abs=1e-4)

    assert metrics["mismatch/mean_delta"] == mean([0.2, -0.6])
    assert metrics["mismatch/mean_abs_delta"] == mean([0.2, 0.6])
    assert metrics["mismatch/kl"] == mean([np.expm1(0.2) - 0.2, np.expm1(-0.6) + 0.6])
    assert metrics["mismatch/max_abs_delta"] == pytest.approx(0.6, abs=1e-4)


def test_what_is_older_than_all_that_is_kept_was_played_by_the_base():
    rng = np.random.default_rng()
    learner, _ = _taught(rng, max_staleness=3)
    rows = [replace(r, staleness_T=4 * r.trained_T) for r in _rows(rng, DECODER, None, [20, 25])]
    assert learner.update(rows)[0]["mismatch/max_abs_delta"] < 1e-4


def test_drift_is_that_of_stale_tokens():
    rng = np.random.default_rng()
    learner, versions = _taught(rng, max_staleness=3)
    decoder, lora, rows = DECODER, versions[-1], list(_aged(rng, versions, [20, 25, 30, 14], current=0.0, stale=0.0))
    metrics = learner.update(rows)[0]
    ages, trained = (np.concatenate([getattr(r, name) for r in rows]) for name in ("staleness_T", "trained_T"))
    moved = np.concatenate([_logprobs(decoder, lora, r.tokens_T, 1.0) - r.logprobs_T for r in rows])
    assert metrics["mismatch/max_abs_delta"] < 1e-4 and metrics["mismatch/kl"] < 1e-6
    assert metrics["staleness/max_abs_delta"] == pytest.approx(abs(moved[ages > 0]).max(), abs=1e-4)
    assert metrics["staleness/mean_abs_delta"] == pytest.approx(abs(moved[ages > 0]).mean(), abs=1e-4)
    assert metrics["staleness/mean"] == pytest.approx(ages[trained].mean(), rel=1e-6)
    assert metrics["staleness/share"] == pytest.approx((ages > 0).sum() / trained.sum())
    assert metrics["staleness/max"] == ages.max()
    plain = _learner(decoder, lora).update([replace(r, staleness_T=None) for r in rows])[0]
    assert plain["loss"] == metrics["loss"] and plain["staleness/max"] == 0.0
    assert plain["mismatch/max_abs_delta"] == metrics["staleness/max_abs_delta"] > 1e-2


def test_update_raises_the_probability_of_what_was_rewarded():
    rng = np.random.default_rng()
    decoder, lora = DECODER, _perturbed(rng)
    rows = _rows(rng, decoder, lora, [24] * 6)
    learner = _learner(decoder, lora, learning_rate=1e-3)
    learner.update(rows)[0]
    moved = [
        r.advantage * float(jnp.sum(r.trained_T * (_logprobs(decoder, learner.lora(), r.tokens_T, 1.0) - r.logprobs_T)))
        for r in rows
    ]
    assert sum(moved) > 0


def test_equal_shapes_compile_once_whatever_the_run():
    rng = np.random.default_rng()
    decoder, lora = DECODER, _perturbed(rng)
    first, second = (_rows(rng, decoder, lora, lengths) for lengths in ([44] * 6, [45, 42, 48, 41, 43, 47]))
    for r in first + second:
        r.trained_T[:] = np.arange(len(r.tokens_T)) % 2 == 1
    _learner(decoder, lora).update(first)
    other = _learner(nnx.merge(*jax.tree.map(lambda x: x * 1.5, nnx.split(decoder))), lora)
    with CompileLog() as log:
        other.update(second)
    assert log.count("jit(gradients)") == 0


def test_what_is_not_finite_is_named_and_changes_nothing():
    rng = np.random.default_rng()
    decoder, lora = DECODER, _perturbed(rng)
    rows = _rows(rng, decoder, lora, [20, 22])
    learner = _learner(decoder, lora)
    before = learner.weights
    with pytest.raises(FloatingPointError, match="loss is (nan|inf|-inf)"):
        learner.update([Sample(r.tokens_T, r.trained_T, r.logprobs_T, np.inf) for r in rows])
    assert learner.weights is before
