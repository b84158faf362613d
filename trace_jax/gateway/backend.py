"""What answers behind the gateway: servers, or the engine in this process."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from starlette.responses import Response

from trace_jax.gateway.request import Call


class Backend(Protocol):
    """Holds adapters by immutable names, and answers calls with one of them or with the base."""

    @property
    def name(self) -> str:
        """Of the base, as a client names the model."""
        ...

    @property
    def max_rank(self) -> int | None:
        """Of an adapter; None: not known, so loading tells."""
        ...

    async def load(self, name: str, directory: Path) -> None:
        """Hold the adapter of a PEFT directory. Raises UserError."""

    async def unload(self, name: str) -> None:
        """Forget an adapter that no call uses."""

    def answer(self, call: Call, adapter: str | None, affinity: str) -> AbstractAsyncContextManager[Response]:
        """The response to ``call``, which may stream while the context is open; leaving it ends the work behind it.

        Calls of equal ``affinity`` begin alike. Raises ApiError.
        """
        ...

    def ready(self) -> bool:
        """True if a call would be answered."""
        ...
