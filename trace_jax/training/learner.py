"""One adapter being learnt: its weights, its optimiser, and the update that a batch of episodes makes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.training.batch import MicroBatch, Row, micro_batches
from trace_jax.training.config import GRPOConfig
from trace_jax.training.step import add_up, apply_function, gradient_function, optimizer, score_function
from trace_jax.training.summary import update_metrics

Tree = Any


class Learner:
    """Holds ``weights`` (LoRA's, A = 1) and ``optimizer_state``, both plain trees that a checkpoint may replace."""

    def __init__(self, decoder: Decoder, config: GRPOConfig) -> None:
        self._config = config
        self._graphdef, self._params = nnx.split(decoder)
        lora = init_lora(
            decoder.config, config.rank, config.alpha, config.target_modules, key=jax.random.key(config.seed)
        )
        self._scale = lora.scale
        self._transformation = optimizer(config.learning_rate, config.warmup_steps, config.max_grad_norm)
        self.weights: Tree = lora.weights
        self.optimizer_state: Tree = self._transformation.init(lora.weights)

    @property
    def lora(self) -> LoRA:
        """The adapter as it is now."""
        return LoRA(self.weights, self._scale)

    def update(self, rows: Sequence[Row]) -> dict[str, float]:
        """``num_iterations`` optimiser steps on ``rows``; returns their mean metrics.

        Raises:
            FloatingPointError: the loss or a gradient is NaN or infinite; the message names it. The weights are then as
                they were before that optimiser step.
        """
        config = self._config
        batches = micro_batches(rows, config.micro_batch_rows, config.loss_type, config.max_completion_length)
        batches = [jax.tree.map(jnp.asarray, micro) for micro in batches]
        # The mismatch is that of the weights which sampled; a single update still has them, later ones do not.
        old = self._scores(batches, self.lora) if config.num_iterations > 1 else [None] * len(batches)
        reference = self._scores(batches, None) if config.beta > 0 else [None] * len(batches)
        gradients = gradient_function(self._graphdef, config.policy_loss)
        totals: dict[str, float] = {}
        for _ in range(config.num_iterations):
            result = None
            for micro, old_M, reference_M in zip(batches, old, reference, strict=True):
                part = gradients(self._params, self.lora, micro, old_M, reference_M)
                result = part if result is None else add_up(result, part)
            assert result is not None
            for name, value in self._apply(*result).items():
                before = totals.get(name, 0.0)
                totals[name] = max(before, value) if name.startswith("max_") else before + value
        for name in ("loss", "grad_norm"):
            totals[name] /= config.num_iterations
        return {**update_metrics(totals), "grad_norm": totals["grad_norm"]}

    def _scores(self, batches: Sequence[MicroBatch], lora: LoRA | None) -> list[jax.Array]:
        score = score_function(self._graphdef, self._config.temperature)
        return [score(self._params, lora, micro) for micro in batches]

    def _apply(self, gradient: Tree, terms: dict[str, jax.Array]) -> dict[str, float]:
        apply = apply_function(self._transformation)
        weights, state, norm = apply(self.weights, self.optimizer_state, gradient)
        values = {name: float(value) for name, value in {**terms, "grad_norm": norm}.items()}
        _check_finite(values["loss"], values["grad_norm"], gradient)
        self.weights, self.optimizer_state = weights, state
        return values


def _check_finite(loss: float, norm: float, gradient: Tree) -> None:
    remedy = "lower learning_rate, or look at the last metrics for what grew"
    if not math.isfinite(loss):
        raise FloatingPointError(f"loss is {loss}: {remedy}")
    if not math.isfinite(norm):
        for path, leaf in jax.tree.leaves_with_path(gradient):
            if not bool(jnp.isfinite(leaf).all()):
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise FloatingPointError(f"gradient of {name} is not finite: {remedy}")
        raise FloatingPointError(f"norm of the gradient is {norm}: {remedy}")
