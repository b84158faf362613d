"""Supervised training of all parameters: how a tiny base agent is taught from demonstrations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from trace_jax.contract.record import ContractError
from trace_jax.models.decoder import Decoder
from trace_jax.training.packing import PackedRow, pack

Tree = Any


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """AdamW with linear warm-up and cosine decay to zero, over ``epochs`` shuffled anew each time."""

    epochs: int = 1
    row_tokens: int = 512  # sequences are packed into rows of this length; none may be longer
    rows: int = 8  # rows of an optimiser step
    learning_rate: float = 2e-3
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class SupervisedReport:
    """What the progress callback gets after each optimiser step; ``tokens`` counts those of the step, padding aside."""

    step: int
    steps: int
    loss: float
    tokens: int


def train_supervised(
    decoder: Decoder,
    sequences: Sequence[tuple[Sequence[int], Sequence[bool]]],
    config: SupervisedConfig,
    progress: Callable[[SupervisedReport], None] | None = None,
) -> list[float]:
    """Fit ``decoder``, in place, to the masked tokens of ``sequences``; returns the loss of every optimiser step.

    The loss is the mean of −log p(token | the tokens of its own sequence before it) over the step's masked tokens.

    Args:
        sequences: ``(tokens, mask)`` of equal length; mask says which tokens are learnt. The first token is never
            learnt, since nothing predicts it.

    Raises:
        ContractError: a sequence is longer than ``row_tokens``, or its mask has another length.
        FloatingPointError: the loss or the gradient is not finite; the decoder is then as it was before.
    """
    rows = _epochs(sequences, config)
    steps = math.ceil(len(rows) / config.rows)
    graphdef, params = nnx.split(decoder)
    params = jax.tree.map(jnp.copy, params)  # the step donates its arguments; the decoder keeps its own until the end
    transformation = _optimizer(config, steps)
    state = transformation.init(params)
    step_function = _step_function(graphdef, transformation)
    losses: list[float] = []
    for step in range(steps):
        chosen = rows[step * config.rows : (step + 1) * config.rows]
        params, state, loss, norm = step_function(params, state, *_arrays(chosen, sequences, config))
        losses.append(float(loss))
        for name, value in (("loss", losses[-1]), ("norm of the gradient", float(norm))):
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} at supervised step {step + 1}: lower learning_rate")
        if progress is not None:
            tokens = sum(len(sequences[index][0]) for row in chosen for index in row)
            progress(SupervisedReport(step + 1, steps, losses[-1], tokens))
    nnx.update(decoder, params)
    return losses


def _epochs(sequences: Sequence[tuple[Sequence[int], Sequence[bool]]], config: SupervisedConfig) -> list[PackedRow]:
    for number, (tokens, mask) in enumerate(sequences):
        if len(tokens) > config.row_tokens or len(tokens) != len(mask):
            raise ContractError(
                f"sequence {number} has {len(tokens)} tokens and a mask of {len(mask)}: "
                f"row_tokens is {config.row_tokens}, and both lengths must agree"
            )
    lengths = [len(tokens) for tokens, _ in sequences]
    rng = np.random.default_rng(config.seed)
    rows: list[PackedRow] = []
    for _ in range(config.epochs):
        epoch = pack(lengths, rng.permutation(len(lengths)).tolist(), config.row_tokens)
        rows += [epoch[i] for i in rng.permutation(len(epoch))]
    return rows


def _arrays(
    chosen: Sequence[PackedRow], sequences: Sequence[tuple[Sequence[int], Sequence[bool]]], config: SupervisedConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions, segment ids (int32) and loss mask (float32) ``[B, T]``; mask t says that token t is learnt."""
    B, T = config.rows, config.row_tokens
    tokens_BT, positions_BT, segment_ids_BT = (np.zeros((B, T), np.int32) for _ in range(3))
    mask_BT = np.zeros((B, T), np.float32)
    for b, row in enumerate(chosen):
        start = 0
        for segment, index in enumerate(row, start=1):
            tokens, mask = sequences[index]
            place = slice(start, start + len(tokens))
            start = place.stop
            tokens_BT[b, place], mask_BT[b, place] = tokens, mask
            positions_BT[b, place] = np.arange(len(tokens))
            segment_ids_BT[b, place] = segment
            mask_BT[b, place.start] = 0.0
    return tokens_BT, positions_BT, segment_ids_BT, mask_BT


def packed_loss(
    decoder: Decoder,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array,
    mask_BT: jax.Array,
) -> jax.Array:
    """Mean cross-entropy of the masked tokens of packed rows; 0 if there are none."""
    hidden_BTD = decoder(tokens_BT, positions_BT, segment_ids_BT, jnp.zeros_like(tokens_BT))
    logits_BTV = decoder.logits(hidden_BTD[:, :-1])
    losses_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, tokens_BT[:, 1:])
    return jnp.sum(losses_BT * mask_BT[:, 1:]) / jnp.maximum(jnp.sum(mask_BT[:, 1:]), 1.0)


@cache
def _optimizer(config: SupervisedConfig, steps: int) -> optax.GradientTransformation:
    warmup = max(1, round(config.warmup_fraction * steps))
    schedule = optax.warmup_cosine_decay_schedule(
        config.learning_rate / warmup, config.learning_rate, warmup, max(steps, warmup + 1)
    )
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adamw(schedule, weight_decay=config.weight_decay)
    )


@cache
def _step_function(graphdef: Any, transformation: optax.GradientTransformation) -> Callable[..., Any]:
    def step(params: Tree, state: Tree, *batch: jax.Array) -> tuple[Tree, Tree, jax.Array, jax.Array]:
        loss, gradient = jax.value_and_grad(lambda weights: packed_loss(nnx.merge(graphdef, weights), *batch))(params)
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, optax.tree.norm(gradient)

    return jax.jit(step, donate_argnums=(0, 1))
