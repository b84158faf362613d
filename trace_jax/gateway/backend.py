"""What answers behind the gateway: servers, or the engine in this process."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from starlette.responses import Response

from trace_jax.gateway.request import CompletionRequest

# Answers one request with an adapter (None: the base). Requests of equal affinity, the second argument, begin alike.
# The response may stream while the context is open; leaving the context ends the work. Entering it raises ApiError.
Answer = Callable[[str | None, str], AbstractAsyncContextManager[Response]]


class Backend(Protocol):
    """Holds adapters by immutable names, and answers requests with one of them or with the base."""

    @property
    def name(self) -> str:
        """The name of the base, as clients call the model."""
        ...

    @property
    def max_rank(self) -> int | None:
        """The highest rank of an adapter; None: unknown until one is loaded."""
        ...

    async def load(self, name: str, directory: Path) -> None:
        """Hold the adapter of a PEFT directory. Raises UserError."""

    async def unload(self, name: str) -> None:
        """Forget an adapter that no request uses."""

    async def prepare(self, request: CompletionRequest) -> Answer:
        """Check a request and write its prompt, before a router reads it. Raises ApiError for one that is refused."""
        ...

    def ready(self) -> bool:
        """True if a request would be answered."""
        ...
