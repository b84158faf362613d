"""Requests wait for a slot at a server, in the order in which they came."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic

from trace_jax.engines.sglang.server_state import S, ServerState
from trace_jax.environments.episode_clock import off_the_clock


@dataclass(frozen=True)
class _Waiting(Generic[S]):
    affinity: str
    failed: Sequence[ServerState[S]]
    assigned: "asyncio.Future[ServerState[S]]"


class RequestQueue(Generic[S]):
    """Gives each of ``servers`` at most ``slots`` requests at a time."""

    def __init__(self, servers: Sequence[ServerState[S]], slots: int) -> None:
        self._servers, self._slots = servers, slots
        self._queue: deque[_Waiting[S]] = deque()

    @asynccontextmanager
    async def slot(
        self, affinity: str, failed: Sequence[ServerState[S]], wait: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[ServerState[S]]:
        """The server at which a slot is held while the context is open. It is none of ``failed`` if there is another.

        ``wait`` returns when a server serves. An error that it raises ends the waiting. The waiting does not count as
        the episode's own time.
        """
        waiting = _Waiting(affinity, failed, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.assign()
        try:
            with off_the_clock():
                while not waiting.assigned.done():
                    await wait()
                    await asyncio.wait([waiting.assigned], timeout=1.0)
            yield waiting.assigned.result()
        finally:
            if not waiting.assigned.cancel():
                waiting.assigned.result().in_flight -= 1
            self.assign()

    def assign(self) -> None:
        """Give free slots to waiting requests. Called after a slot becomes free, or a server begins to serve."""
        while self._queue:
            waiting = self._queue[0]
            if not waiting.assigned.done():
                server = choose(self._servers, self._slots, waiting.affinity, waiting.failed)
                if server is None:
                    return
                server.in_flight += 1
                waiting.assigned.set_result(server)
            self._queue.popleft()


def choose(
    servers: Sequence[ServerState[S]], slots: int, affinity: str, failed: Sequence[ServerState[S]]
) -> ServerState[S] | None:
    """A server with a free slot, or None: the server that ``affinity`` points to, else the least loaded one.

    It is none of ``failed`` if there is another. ``affinity`` points to the first server of an order that depends on
    ``affinity`` and the servers alone (rendezvous hashing), so that only the requests of a lost server move. A server
    with more than half its slots taken, and a quarter more than the mean, is passed over.
    """
    serving = [server for server in servers if server.serves]
    free = [server for server in serving if server.in_flight < slots]
    if not free:
        return None
    free = [server for server in free if server not in failed] or free
    mean = sum(server.in_flight for server in serving) / len(serving)
    roomy = [server for server in free if server.in_flight < max(slots / 2, 1.25 * mean)]
    if affinity and roomy:
        return max(roomy, key=lambda state: hashlib.sha256(f"{affinity} {state.server.url}".encode()).digest())
    return min(free, key=lambda server: server.in_flight)
