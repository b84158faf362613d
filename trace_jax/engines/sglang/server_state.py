"""What a pool knows of its servers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from trace_jax.errors import EngineError


class Member(Protocol):
    """A server of the pool."""

    @property
    def url(self) -> str: ...

    async def ready(self) -> None:
        """Return if it takes requests. Raises ServerFailed."""
        ...

    async def update(self) -> None:
        """Return when it is ready and all that its requests need is there. Raises EngineError if that cannot be."""
        ...

    def doubt(self) -> None:
        """It has failed, and may be another process when it answers again."""
        ...


M = TypeVar("M", bound=Member)


@dataclass(eq=False)
class Place(Generic[M]):
    member: M
    serves: bool = False
    error: EngineError | None = None  # why it does not
    missed: int = 0  # looks in a row that failed
    slow: int = 0  # requests in a row that it did not answer in time
    outs: int = 0  # times that it was found to fail
    next_look: float = 0.0  # by time.monotonic
    requests: set["asyncio.Future[Any]"] = field(default_factory=set)  # that have no answer
    holders: set[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = field(default_factory=set)  # of an answer
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # of ``update``, from whatever event loop

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Around what is done with an answer that goes on. Raises TimeoutError when the server is given up."""
        loop, clock = asyncio.get_running_loop(), asyncio.timeout(None)

        def cut() -> None:
            clock.reschedule(loop.time())

        holder = loop, cut
        self.holders.add(holder)
        try:
            async with clock:
                yield
        except TimeoutError:
            if clock.expired():
                raise TimeoutError(f"{self.member.url} went away: {self.error}") from None
            raise
        finally:
            self.holders.discard(holder)

    def give_up(self) -> None:
        """End all that waits for this server."""
        for task in list(self.requests):
            task.get_loop().call_soon_threadsafe(task.cancel)
        for loop, cut in list(self.holders):
            loop.call_soon_threadsafe(cut)
