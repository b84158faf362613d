"""The compiled functions of an update: score tokens, accumulate gradients, apply them.

Each is one program for any mesh: a ``shard_map`` in which every device works on its own rows. It is compiled once for
each shape and cached for the life of the process, so runs of one base share it. Weights are arguments, never constants.
Frozen and trained weights are two trees: ``params`` (``decoder.params_of``) and ``weights`` (LoRA's).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import decoder_of, layer_shapes
from trace_jax.models.execution import Execution
from trace_jax.models.lora import LoRA
from trace_jax.models.sharding import lora_specs, param_specs
from trace_jax.parallel.collectives import vary
from trace_jax.parallel.mesh import AXES, BATCH_AXES
from trace_jax.training.batch import MicroBatch
from trace_jax.training.head import token_logprobs
from trace_jax.training.loss import PolicyLossConfig, Terms, mismatch_terms, policy_loss
from trace_jax.training.staleness import split_stale

Tree = Any


@dataclass(frozen=True)
class Program:
    """What a compiled function depends on beyond the shapes of its arguments.

    ``targets`` are the projections that carry LoRA. ``temperature`` is the sampler's, and so that of the trained
    distribution.
    """

    model: DecoderConfig
    mesh: Mesh
    execution: Execution
    targets: tuple[str, ...]
    temperature: float

    @property
    def param_specs(self) -> Tree:
        return param_specs(self.model, tuple(layer_shapes(self.model)))

    @property
    def lora_specs(self) -> Tree:
        return lora_specs(self.model, self.targets)

    @property
    def adapter_specs(self) -> Tree:
        return LoRA(self.lora_specs, P())  # type: ignore[arg-type]


def trained_logprobs(
    program: Program, params: Tree, lora: LoRA | None, micro: MicroBatch
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy, float ``[M]`` each, of a shard's trained tokens; ``lora`` None is the base."""
    model = decoder_of(program.model, params)
    hidden_BTD = model(
        micro.tokens_BT,
        micro.positions_BT,
        micro.segment_ids_BT,
        micro.parent_ids_BT,
        lora=lora,
        adapter_ids_B=None if lora is None else micro.adapter_ids_B,
        execution=program.execution,
    )
    # Only trained tokens meet the head: about a third of an episode.
    hidden_MD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[micro.source_M]
    return token_logprobs(
        hidden_MD, model.head_VD(), micro.target_M, program.temperature, program.execution.logits_elements
    )


@cache
def score_function(program: Program, adapted: bool) -> Callable[..., jax.Array]:
    """``(params, lora, micro) → logprobs_M`` of the adapters, or of the base if not ``adapted``."""

    def score(params: Tree, lora: LoRA, micro: MicroBatch) -> jax.Array:
        return trained_logprobs(program, params, lora if adapted else None, micro)[0]

    in_specs = program.param_specs, program.adapter_specs, P(BATCH_AXES)
    return jax.jit(jax.shard_map(score, mesh=program.mesh, in_specs=in_specs, out_specs=P(BATCH_AXES)))


@cache
def mismatch_function(program: Program, adapted: bool) -> Callable[..., Terms]:
    """``(params, lora, micro, age) → terms [A]``: the mismatch of the tokens that were sampled ``age`` updates ago.

    They were sampled by ``lora``, or by the base if not ``adapted``.
    """

    def mismatch(params: Tree, lora: LoRA, micro: MicroBatch, age: jax.Array) -> Terms:
        logprobs_M, _ = trained_logprobs(program, params, lora if adapted else None, micro)
        compared_M = (micro.weights_M > 0) & (micro.staleness_M == age)
        terms_M = mismatch_terms(jnp.where(compared_M, logprobs_M - micro.sampler_logprobs_M, 0.0))
        terms_M["compared"] = compared_M.astype(micro.weights_M.dtype)
        return _by_adapter(terms_M, ("abs_delta",), micro.adapter_M, lora.scale.shape[0])

    in_specs = program.param_specs, program.adapter_specs, P(BATCH_AXES), P()
    return jax.jit(jax.shard_map(mismatch, mesh=program.mesh, in_specs=in_specs, out_specs=P()))


@cache
def gradient_function(program: Program, config: PolicyLossConfig) -> Callable[..., tuple[Tree, Terms]]:
    """``(params, lora, micro, old_M | None, reference_M | None) → (gradients by lora.weights, terms [A])``.

    Gradients are summed over devices once, at the end, and not in every layer.
    """

    def gradients(
        params: Tree, lora: LoRA, micro: MicroBatch, old_M: jax.Array | None, reference_M: jax.Array | None
    ) -> tuple[Tree, Terms]:
        def loss_of(weights: Tree) -> tuple[jax.Array, Terms]:
            logprobs_M, entropy_M = trained_logprobs(program, params, LoRA(weights, lora.scale), micro)
            loss_M, terms = policy_loss(
                logprobs_M,
                old_logprobs_M=old_M,
                sampler_logprobs_M=micro.sampler_logprobs_M,
                reference_logprobs_M=reference_M,
                advantages_M=micro.advantages_M,
                weights_M=micro.weights_M,
                sequence_M=micro.sequence_M,
                config=config,
            )
            terms = split_stale(terms, micro.staleness_M)
            entropy_M = jnp.where(micro.weights_M > 0, entropy_M, 0.0)
            return jnp.sum(loss_M), {**terms, "loss": jax.lax.stop_gradient(loss_M), "entropy": entropy_M}

        gradient, terms_M = jax.grad(loss_of, has_aux=True)(vary(lora.weights, AXES))
        gradient = jax.tree.map(_sum_unsplit, gradient, program.lora_specs)
        maxima = "abs_delta", "stale_abs_delta", "staleness"
        return gradient, _by_adapter(terms_M, maxima, micro.adapter_M, lora.scale.shape[0])

    in_specs = program.param_specs, program.adapter_specs, P(BATCH_AXES), P(BATCH_AXES), P(BATCH_AXES)
    return jax.jit(jax.shard_map(gradients, mesh=program.mesh, in_specs=in_specs, out_specs=(program.lora_specs, P())))


def _by_adapter(terms_M: Terms, maxima: Sequence[str], adapter_M: jax.Array, A: int) -> Terms:
    """The terms of all shards' tokens, ``[A]`` each: sums, and for ``maxima`` (terms ≥ 0) the largest as ``max_*``."""
    sums = {name: jax.ops.segment_sum(value_M, adapter_M, A) for name, value_M in terms_M.items()}
    largest = {f"max_{name}": jnp.maximum(jax.ops.segment_max(terms_M[name], adapter_M, A), 0.0) for name in maxima}
    return {**jax.lax.psum(sums, BATCH_AXES), **jax.lax.pmax(largest, BATCH_AXES)}


def _sum_unsplit(gradient: jax.Array, spec: P) -> jax.Array:
    """The sum over all axes along which the weight is the same everywhere."""
    split = {axis for part in spec if part for axis in ((part,) if isinstance(part, str) else part)}
    return jax.lax.psum(gradient, tuple(axis for axis in AXES if axis not in split))


@jax.jit
def add_up(first: tuple[Tree, Terms], second: tuple[Tree, Terms]) -> tuple[Tree, Terms]:
    """Join the gradients and terms of two micro-batches: sums, and maxima of ``max_*``.

    The sum over micro-batches is the batch's exact gradient, because ``loss.token_weights`` divides by the totals of
    the batch.
    """
    terms = {
        name: (jnp.maximum if name.startswith("max_") else jnp.add)(value, second[1][name])
        for name, value in first[1].items()
    }
    return jax.tree.map(jnp.add, first[0], second[0]), terms


@cache
def optimizer(learning_rate: float, warmup_steps: int, max_grad_norm: float) -> optax.GradientTransformation:
    """AdamW without weight decay, clipping by the global norm, and linear warm-up to a constant rate.

    The first step of the warm-up already learns. Every leaf has the axis of adapters first, and each adapter has
    moments, a norm and a count of steps of its own.
    """

    def rate(count: jax.Array) -> jax.Array:
        return learning_rate * jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))

    single = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adamw(rate, weight_decay=0.0))

    def update(gradient: Tree, state: Tree, weights: Tree | None = None) -> tuple[Tree, Tree]:
        return jax.vmap(single.update)(gradient, state, weights)

    return optax.GradientTransformation(jax.vmap(single.init), update)


def state_specs(state: Tree, weights: Tree, specs: Tree) -> Tree:
    """PartitionSpecs of an optimiser's ``state``: moments as the weights (``specs``), all else replicated."""
    outline: Any = jax.tree.structure(weights)

    def moments(node: Tree) -> bool:
        return jax.tree.structure(node) == outline

    return jax.tree.map(lambda node: specs if moments(node) else P(), state, is_leaf=moments)


@cache
def apply_function(transformation: optax.GradientTransformation) -> Callable[..., tuple[Tree, Tree, jax.Array]]:
    """``(weights, state, gradients, active_A) → (weights, state, norms [A] before clipping)``.

    ``active_A`` (bool) is false for adapters that had no sample. These stay as they are, and so does their state.
    """

    @jax.jit
    def apply(weights: Tree, state: Tree, gradient: Tree, active_A: jax.Array) -> tuple[Tree, Tree, jax.Array]:
        updates, new_state = transformation.update(gradient, state, weights)

        def keep(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(active_A.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        new = jax.tree.map(keep, optax.apply_updates(weights, updates), weights)
        return new, jax.tree.map(keep, new_state, state), jax.vmap(optax.tree.norm)(gradient)

    return apply
