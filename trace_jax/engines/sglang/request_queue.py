"""Requests take seats at servers, in the order in which they came."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic

from trace_jax.engines.deadline import off_the_clock
from trace_jax.engines.sglang.server_state import M, Place


@dataclass(frozen=True)
class _Turn(Generic[M]):
    affinity: str
    failed: Sequence[Place[M]]
    place: "asyncio.Future[Place[M]]"


class RequestQueue(Generic[M]):
    """``most`` of them at each of ``places``."""

    def __init__(self, places: Sequence[Place[M]], most: int) -> None:
        self._places, self._most = places, most
        self._queue: deque[_Turn[M]] = deque()

    @asynccontextmanager
    async def take(
        self, affinity: str, failed: Sequence[Place[M]], wait: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[Place[M]]:
        """A place where a seat is held while the context is open; not one of ``failed`` if there is another.

        ``wait`` returns when a server serves; what it raises ends the waiting, which is off an episode's clock.
        """
        turn = _Turn(affinity, failed, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        self.fill()
        try:
            with off_the_clock():
                while not turn.place.done():
                    await wait()
                    await asyncio.wait([turn.place], timeout=1.0)
            yield turn.place.result()
        finally:
            if not turn.place.cancel():
                turn.place.result().in_flight -= 1
            self.fill()

    def fill(self) -> None:
        """Give free seats to those who wait: after one was freed, or a server begins to serve."""
        while self._queue:
            turn = self._queue[0]
            if not turn.place.done():
                place = choose(self._places, self._most, turn.affinity, turn.failed)
                if place is None:
                    return
                place.in_flight += 1
                turn.place.set_result(place)
            self._queue.popleft()


def choose(places: Sequence[Place[M]], seats: int, affinity: str, failed: Sequence[Place[M]]) -> Place[M] | None:
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
