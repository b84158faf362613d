"""The compiled pieces of an update: score, accumulate gradients, apply them.

Each is compiled once per shape and kept for the life of the process, so that runs of one base share them. Weights are
arguments, never constants. Frozen and trained weights are two trees: ``params`` (of ``nnx.split``) and ``weights`` (of
LoRA).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from trace_jax.models.lora import LoRA
from trace_jax.training.batch import MicroBatch
from trace_jax.training.config import PolicyLossConfig
from trace_jax.training.head import token_logprobs
from trace_jax.training.loss import Terms, policy_loss

Tree = Any


def trained_logprobs(
    graphdef: Any, params: Tree, lora: LoRA | None, micro: MicroBatch, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy, ``[M]`` each, of a micro-batch's trained tokens; ``lora`` None is the base."""
    model = nnx.merge(graphdef, params)
    hidden_BTD = model(
        micro.tokens_BT,
        micro.positions_BT,
        micro.segment_ids_BT,
        micro.parent_ids_BT,
        lora=lora,
        adapter_ids_B=None if lora is None else micro.adapter_ids_B,
    )
    # Only what is trained meets the head: about a third of an episode's tokens.
    hidden_MD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[micro.source_M]
    return token_logprobs(hidden_MD, model.head_VD(), jnp.asarray(micro.target_M), temperature)


@cache
def score_function(graphdef: Any, temperature: float) -> Callable[..., jax.Array]:
    """``(params, lora | None, micro) → logprobs_M``, for the reference policy and for old log-probabilities."""

    @jax.jit
    def score(params: Tree, lora: LoRA | None, micro: MicroBatch) -> jax.Array:
        return trained_logprobs(graphdef, params, lora, micro, temperature)[0]

    return score


@cache
def gradient_function(graphdef: Any, config: PolicyLossConfig) -> Callable[..., tuple[Tree, Terms]]:
    """``(params, lora, micro, old_M | None, reference_M | None) → (gradients by lora.weights, terms)``."""

    @jax.jit
    def gradients(
        params: Tree,
        lora: LoRA,
        micro: MicroBatch,
        old_M: jax.Array | None,
        reference_M: jax.Array | None,
    ) -> tuple[Tree, Terms]:
        def loss_of(weights: Tree) -> tuple[jax.Array, Terms]:
            logprobs_M, entropy_M = trained_logprobs(
                graphdef, params, LoRA(weights, lora.scale), micro, config.temperature
            )
            loss, terms = policy_loss(
                logprobs_M,
                old_M,
                jnp.asarray(micro.sampler_logprobs_M),
                reference_M,
                jnp.asarray(micro.advantages_M),
                jnp.asarray(micro.weights_M),
                jnp.asarray(micro.sequence_M),
                micro.tokens_BT.shape[0],
                config,
            )
            entropy = jnp.sum(jnp.where(micro.weights_M > 0, entropy_M, 0.0))
            return loss, {**terms, "loss": loss, "entropy": entropy}

        return jax.grad(loss_of, has_aux=True)(lora.weights)

    return gradients


@jax.jit
def add_up(first: tuple[Tree, Terms], second: tuple[Tree, Terms]) -> tuple[Tree, Terms]:
    """Join the gradients and terms of two micro-batches: sums, but maxima of ``max_*``.

    The sum over micro-batches is the batch's exact gradient, because ``aggregation.token_weights`` divides by the
    batch's totals.
    """
    terms = {
        name: (jnp.maximum if name.startswith("max_") else jnp.add)(value, second[1][name])
        for name, value in first[1].items()
    }
    return jax.tree.map(jnp.add, first[0], second[0]), terms


@cache
def optimizer(learning_rate: float, warmup_steps: int, max_grad_norm: float) -> optax.GradientTransformation:
    """AdamW without weight decay, global-norm clipping, linear warm-up to a constant rate (step 1 already learns)."""

    def rate(count: jax.Array) -> jax.Array:
        return learning_rate * jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))

    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adamw(rate, weight_decay=0.0))


@cache
def apply_function(transformation: optax.GradientTransformation) -> Callable[..., tuple[Tree, Tree, jax.Array]]:
    """``(weights, optimiser state, gradients) → (weights, optimiser state, global norm before clipping)``."""

    @jax.jit
    def apply(weights: Tree, state: Tree, gradient: Tree) -> tuple[Tree, Tree, jax.Array]:
        updates, state = transformation.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, optax.tree.norm(gradient)

    return apply
