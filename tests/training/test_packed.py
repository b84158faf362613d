"""Packed rows with shared prompts, and many adapters in one step, against one sample and one adapter at a time."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from gradients import assert_close, fresh, gradients, groups_of_samples, noisy
from test_sharded import DENSE, EXPERTS

from trace_jax.training.learner import Learner
from trace_jax.training.settings import GRPOConfig

sys.path.append(str(Path(__file__).parents[1] / "models"))
from forward import noisy_decoder  # noqa: E402


@pytest.mark.parametrize(
    "model,level",
    [
        pytest.param(DENSE, "sequence", id="sequence-dense"),
        pytest.param(EXPERTS, "token", id="token-experts"),
        pytest.param(DENSE, "token", id="token-dense", marks=pytest.mark.slow),
        pytest.param(EXPERTS, "sequence", id="sequence-experts", marks=pytest.mark.slow),
    ],
)
def test_packed_equals_unpacked(model, level):
    rng = np.random.default_rng()
    decoder, lora = noisy_decoder(rng, model), fresh(rng, model)
    samples = groups_of_samples(rng, 96, 3, 4)
    alone = [replace(sample, group=None) for sample in samples]
    packed = gradients(decoder, lora, samples, tokens=160, importance_sampling_level=level)
    unpacked = gradients(decoder, lora, alone, tokens=32, importance_sampling_level=level)  # one a row, row by row
    assert_close(packed, unpacked)


@pytest.mark.parametrize(
    "model",  # two adapters of experts in one step are compared on meshes in test_sharded.py
    [pytest.param(DENSE, id="dense"), pytest.param(EXPERTS, id="experts", marks=pytest.mark.slow)],
)
def test_adapters_trained_together_equal_adapters_trained_alone(model):
    """Three steps; one adapter sits the second out. Clipping, moments and step counts are each adapter's own."""
    rng = np.random.default_rng()
    decoder = noisy_decoder(rng, model)
    config = GRPOConfig(
        max_steps=1, rank=4, alpha=8.0, learning_rate=1e-4, warmup_steps=3, max_grad_norm=0.05, micro_batch_tokens=256
    )
    shaped = groups_of_samples(rng, 96, 6, 3, adapters=3)
    together = Learner(decoder, config, temperature=1.0, seed=0, names=("a", "b", "c"))
    together.weights = noisy(rng, together.weights)
    alone = []
    for index in range(3):
        learner = Learner(decoder, config, temperature=1.0, seed=0)
        learner.weights = jax.tree.map(lambda x, i=index: x[i : i + 1], together.weights)
        alone.append(learner)
    for step in range(3):
        renamed = rng.permutation(96)  # other tokens, the same shapes
        samples = [
            replace(sample, tokens_T=renamed[sample.tokens_T], advantage=float(rng.normal()))
            for sample in shaped
            if step != 1 or sample.adapter != 1
        ]
        metrics = together.update(samples)
        for index, learner in enumerate(alone):
            own = [replace(sample, adapter=0) for sample in samples if sample.adapter == index]
            if not own:
                assert metrics[index] == {}
                continue
            (expected,) = learner.update(own)
            assert metrics[index] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for index, learner in enumerate(alone):
        found, expected = together.state(index), learner.state(0)
        for ours, theirs in zip(*map(jax.tree.leaves, (found["optimizer"], expected["optimizer"])), strict=True):
            tolerance = 2e-5 * np.abs(theirs).max()  # squares: twice the error
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
        # AdamW turns rounding in a gradient near zero into a share of the learning rate: hence an absolute bound.
        for ours, theirs in zip(*map(jax.tree.leaves, (found["weights"], expected["weights"])), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
