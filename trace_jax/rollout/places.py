"""What a pool knows of its servers, and which of them a request goes to."""

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from trace_jax.rollout.engine import EngineError


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
    requests: set["asyncio.Future[Any]"] = field(default_factory=set)
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # of ``update``, from whatever event loop


def choose(
    places: Sequence[Place[M]], seats: int, affinity: str, failed: Sequence[Place[M]]
) -> Place[M] | None:
    """A server with a free seat: the one that ``affinity`` points to, else the least loaded; not one of ``failed``
    if there is another.

    The first of an order that depends on the key and the servers alone (rendezvous hashing): when a server goes,
    only its own keys move. One with more than half its seats taken, and a quarter above the mean, is passed over.
    """
    serving = [place for place in places if place.serves]
    free = [place for place in serving if place.in_flight < seats]
    if not free:
        return None
    free = [place for place in free if place not in failed] or free
    mean = sum(place.in_flight for place in serving) / len(serving)
    roomy = [place for place in free if place.in_flight < max(seats / 2, 1.25 * mean)]
    if affinity and roomy:
        return max(roomy, key=lambda place: hashlib.sha256(f"{affinity} {place.member.url}".encode()).digest())
    return min(free, key=lambda place: place.in_flight)
