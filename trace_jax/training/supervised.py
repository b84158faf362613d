"""Supervised learning of all weights from demonstrations, before any reinforcement learning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from trace_jax.models.decoder import Decoder

_MULTIPLE = 32  # rows are padded to a multiple of this many tokens; each length is one compilation


@dataclass(frozen=True)
class Demonstration:
    """Token ids of an episode; ``trained`` marks those that the agent has to produce."""

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """AdamW with linear warm-up and cosine decay to a twentieth of the learning rate."""

    learning_rate: float = 4e-3
    rows: int = 32  # demonstrations a step
    warmup_steps: int = 30  # at most a tenth of all steps
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0  # the gradient's global norm is clipped to it
    context_weight: float = 0.1  # weight in the loss of tokens that the agent need not produce


def train_supervised(
    decoder: Decoder,
    demonstrations: Sequence[Demonstration],
    config: SupervisedConfig,
    progress: Callable[[int, float], None] | None = None,
) -> Decoder:
    """Train on ``demonstrations`` once, in the order given (put the easy ones first); return the trained decoder.

    Args:
        decoder: it is not changed.
        progress: called after each step with its number, from 1, and the mean negative log-likelihood of the trained
            tokens of its batch, in nats.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    graphdef, params = nnx.split(decoder)
    steps = math.ceil(len(demonstrations) / config.rows)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, min(config.warmup_steps, steps // 10), steps, config.learning_rate / 20
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(rate, b2=0.95, weight_decay=config.weight_decay),
    )

    @partial(jax.jit, donate_argnums=(0, 1))  # a model, its gradient and two moments: no room for a second set
    def step(
        params: nnx.State, state: optax.OptState, tokens_BT: jax.Array, trained_BT: jax.Array, real_BT: jax.Array
    ) -> tuple[nnx.State, optax.OptState, jax.Array]:
        def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
            return token_losses(nnx.merge(graphdef, params), tokens_BT, trained_BT, real_BT, config.context_weight)

        (_, nll), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, nll

    params = jax.tree.map(jnp.copy, params)  # the step donates its arguments; the caller's must stay
    state = optimizer.init(params)
    for number, batch in enumerate(batches(demonstrations, config.rows), start=1):
        params, state, nll = step(params, state, *batch)
        if not math.isfinite(value := float(nll)):
            raise FloatingPointError(
                f"supervised step {number}: loss is {value}; lower learning_rate={config.learning_rate}"
            )
        if progress is not None:
            progress(number, value)
    return nnx.merge(graphdef, params)


def token_losses(
    decoder: Decoder, tokens_BT: jax.Array, trained_BT: jax.Array, real_BT: jax.Array, context_weight: float
) -> tuple[jax.Array, jax.Array]:
    """The weighted mean of −log p(token | tokens before it), and the plain mean over trained tokens, in nats.

    Trained tokens have weight 1, the other real tokens ``context_weight``, and padding has weight 0. Nothing predicts
    the first token of a row, so it does not count.

    Args:
        tokens_BT: int32 ``[B, T]``.
        trained_BT, real_BT: bool ``[B, T]``; what is not real is padding.
    """
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
    segments_BT = real_BT.astype(jnp.int32)
    hidden_BTD = decoder(tokens_BT, positions_BT, segments_BT, jnp.zeros_like(segments_BT))
    nll_BT = optax.softmax_cross_entropy_with_integer_labels(decoder.logits(hidden_BTD[:, :-1]), tokens_BT[:, 1:])
    trained_BT = trained_BT[:, 1:]
    weights_BT = jnp.where(trained_BT, 1.0, jnp.where(real_BT[:, 1:], context_weight, 0.0))
    return (nll_BT * weights_BT).sum() / weights_BT.sum(), (nll_BT * trained_BT).sum() / trained_BT.sum()


def batches(demonstrations: Sequence[Demonstration], rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield tokens (int32), which of them are trained, and which are real (bool), each ``[rows, T]``.

    Rows that the last batch lacks are padding.
    """
    for start in range(0, len(demonstrations), rows):
        shown = demonstrations[start : start + rows]
        shape = rows, math.ceil(max(len(demonstration.tokens) for demonstration in shown) / _MULTIPLE) * _MULTIPLE
        tokens, trained, real = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
        for row, demonstration in enumerate(shown):
            length = len(demonstration.tokens)
            tokens[row, :length] = demonstration.tokens
            trained[row, :length] = demonstration.trained
            real[row, :length] = True
        yield tokens, trained, real
