"""What the base computes for a prompt: pooled hidden states (gate), next-token log-probabilities (classifier)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trace_jax.errors import UserError
from trace_jax.models.buckets import bucket
from trace_jax.models.decoder import Decoder, pooled

ROWS = 16  # prompts of one forward pass; a smaller batch is padded to it, so that nothing compiles for each number
SHORTEST = 32


class PromptReader:
    """Runs the base (no adapter) over prompts, in batches of ``ROWS`` of similar length."""

    def __init__(self, decoder: Decoder, max_tokens: int = 8192) -> None:
        self._graphdef, self._params = nnx.split(decoder)
        self._max_tokens = max_tokens

    def check_length(self, prompt: Sequence[int]) -> None:
        """Raises UserError for an empty prompt or one above ``max_tokens``."""
        if not 0 < len(prompt) <= self._max_tokens:
            raise UserError(
                f"prompt of {len(prompt)} tokens; a router reads 1 to {self._max_tokens}: shorten it or raise the limit"
            )

    def pooled(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """``[N, 2, D]`` float32: final-norm hidden state, mean over the prompt's tokens, and at its last token."""
        return self._batched(prompts, lambda mean, last: jnp.stack([mean, last], axis=1))

    def next_logprobs(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> np.ndarray:
        """``[N, C]`` float32: log-probability of each of the C ``token_ids`` as the token after each prompt."""
        ids = jnp.asarray(token_ids, jnp.int32)
        return self._batched(prompts, lambda mean, last: _next_logprobs(self._graphdef, self._params, last, ids))

    def _batched(
        self, prompts: Sequence[Sequence[int]], head: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> np.ndarray:
        if not prompts:
            raise UserError("no prompts to read; give at least one")
        for prompt in prompts:
            self.check_length(prompt)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        rows: dict[int, np.ndarray] = {}
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            size = 1 if len(chosen) == 1 else ROWS  # a conversation that comes alone does not pay for sixteen
            tokens = np.zeros((size, bucket(len(prompts[chosen[-1]]), SHORTEST)), np.int32)
            lengths = np.ones(size, np.int32)
            for row, index in enumerate(chosen):
                tokens[row, : len(prompts[index])] = prompts[index]
                lengths[row] = len(prompts[index])
            values = np.asarray(head(*_pool(self._graphdef, self._params, tokens, lengths)), np.float32)
            rows.update(zip(chosen, values, strict=False))  # rows past the chosen ones are padding
        return np.stack([rows[i] for i in range(len(prompts))])


@partial(jax.jit, static_argnums=0)
def _pool(
    graphdef: nnx.GraphDef[Decoder], params: nnx.State[Any, Any], tokens_BT: jax.Array, lengths_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and last final-norm hidden states ``[B, D]`` float32 of right-padded prompts."""
    steps_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32), tokens_BT.shape)
    real_BT = steps_BT < lengths_B[:, None]
    hidden_BTD = nnx.merge(graphdef, params)(tokens_BT, steps_BT, real_BT.astype(jnp.int32), jnp.zeros_like(steps_BT))
    last_BD = hidden_BTD[jnp.arange(tokens_BT.shape[0]), lengths_B - 1].astype(jnp.float32)
    return pooled(hidden_BTD, real_BT), last_BD


@partial(jax.jit, static_argnums=0)
def _next_logprobs(
    graphdef: nnx.GraphDef[Decoder], params: nnx.State[Any, Any], last_BD: jax.Array, ids_C: jax.Array
) -> jax.Array:
    """Log-probabilities ``[B, C]`` of the tokens ``ids_C``."""
    return jax.nn.log_softmax(nnx.merge(graphdef, params).logits(last_BD), axis=-1)[:, ids_C]
