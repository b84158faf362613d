"""The protocol of inference engines, as the agent loop uses them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from trace_jax.errors import EngineError


@dataclass(frozen=True)
class Sampling:
    """How to sample. ``temperature`` 0 is greedy.

    Log-probabilities are those of ``logits / temperature`` (of ``logits`` if greedy). The same seed, prompt and weights
    give the same tokens, whatever else is in the batch; with SGLang only if the server runs with
    --enable-deterministic-inference.
    """

    max_tokens: int
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """Sampled tokens, each with its log-probability. If a stop token ended the completion, it is the last token."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """Token ids in, token ids and log-probabilities out. ``adapter=None`` is the base model.

    Every method raises EngineError if the engine cannot serve the request.
    """

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        """Sample after ``token_ids``.

        Requests of equal ``affinity`` begin with the same tokens. If there are several servers, such requests go to
        the same one, which has the prefix in its cache.
        """
        ...

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under an immutable, versioned name."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Remove an adapter."""
        ...

    async def health(self) -> bool:
        """Whether requests can be served now."""
        ...


def checked_prompt(token_ids: Sequence[int], sampling: Sampling, vocab_size: int, capacity: int) -> np.ndarray:
    """A request's prompt as int64 ``[T]``. Raises EngineError for a prompt or sampling that no engine can serve."""
    prompt = np.asarray(token_ids, np.int64)
    if prompt.ndim != 1 or not prompt.size:
        raise EngineError("the prompt has no tokens: give at least one")
    outside = prompt[(prompt < 0) | (prompt >= vocab_size)]
    if outside.size:
        raise EngineError(f"token id {outside[0]} is outside the vocabulary of {vocab_size}")
    if sampling.max_tokens < 1:
        raise EngineError(f"max_tokens is {sampling.max_tokens}: ask for at least 1")
    if prompt.size + sampling.max_tokens > capacity:
        raise EngineError(
            f"prompt of {prompt.size} tokens and max_tokens {sampling.max_tokens} exceed the engine's capacity of "
            f"{capacity}: shorten them or make the engine larger"
        )
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise EngineError(f"temperature is {sampling.temperature}: give a finite number >= 0")
    return prompt
