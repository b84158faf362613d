"""What an inference engine offers to the agent loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from trace_jax.contract.record import ContractError


class EngineError(ContractError):
    """The engine could not serve a request. An episode that asked is broken, not failed; elsewhere it ends the program.

    As of every ContractError, the message is one line with the remedy.
    """


@dataclass(frozen=True)
class Sampling:
    """How to sample. ``temperature`` 0 is greedy; log-probabilities are those of ``logits / temperature`` (of
    ``logits`` when greedy), before any truncation. The same ``seed``, prompt and weights give the same tokens whatever
    else is in the batch.
    """

    max_tokens: int
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """Sampled tokens (the stop token included, if one ended it) with one log-probability each."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """Token ids in, token ids and log-probabilities out. ``adapter=None`` is the base model."""

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        """Sample after ``token_ids``. Requests of equal ``affinity`` begin alike: they belong on one server."""
        ...

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under an immutable, versioned name."""
        ...

    async def unload_adapter(self, name: str) -> None: ...

    async def health(self) -> bool: ...
