"""What a pool knows about each of its servers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from trace_jax.errors import EngineError


class PooledServer(Protocol):
    """A server of a pool."""

    @property
    def url(self) -> str: ...

    async def ready(self) -> None:
        """Return if the server takes requests. Raises ServerFailed."""
        ...

    async def update(self) -> None:
        """Return when the server takes requests and has all that they need. Raises EngineError if it cannot."""
        ...

    def invalidate(self) -> None:
        """Forget what is known about the server: it has failed, and may be another process when it answers again."""
        ...


S = TypeVar("S", bound=PooledServer)


@dataclass(eq=False)
class ServerState(Generic[S]):
    """A server, whether it gets requests, and the requests that it has."""

    server: S
    serves: bool = False  # whether it gets requests
    error: EngineError | None = None  # why it does not
    failed_checks: int = 0  # in a row
    timeouts: int = 0  # requests in a row that it did not answer in time
    failures: int = 0  # times that it was taken out
    next_check: float = 0.0  # by time.monotonic
    pending: set["asyncio.Future[Any]"] = field(default_factory=set)  # requests without a response
    streams: set[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = field(default_factory=set)  # open responses
    in_flight: int = 0  # requests that have a slot
    lock: threading.Lock = field(default_factory=threading.Lock)  # of ``update``, across event loops

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[None]:
        """Hold this open while a response is read. Raises TimeoutError if the server is given up meanwhile."""
        loop, clock = asyncio.get_running_loop(), asyncio.timeout(None)

        def end() -> None:
            clock.reschedule(loop.time())

        stream = loop, end
        self.streams.add(stream)
        try:
            async with clock:
                yield
        except TimeoutError:
            if clock.expired():
                raise TimeoutError(f"{self.server.url} went away: {self.error}") from None
            raise
        finally:
            self.streams.discard(stream)

    def cancel_all(self) -> None:
        """End everything that waits for this server."""
        for task in list(self.pending):
            task.get_loop().call_soon_threadsafe(task.cancel)
        for loop, end in list(self.streams):
            loop.call_soon_threadsafe(end)
