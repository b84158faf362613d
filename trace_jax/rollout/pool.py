"""Many servers as one: who is there, who is asked, and what happens when one goes."""

import asyncio
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from trace_jax.rollout.deadline import off_the_clock
from trace_jax.rollout.engine import EngineError, EngineGone
from trace_jax.rollout.sglang_server import ServerFailed

log = logging.getLogger(__name__)

_READY_SECONDS = 5.0  # between two looks at a server that serves
_MISSED = 2  # looks in a row that find nothing, and it is out
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 15.0  # seconds between two looks at a server that is out
_TELL_SECONDS = 10.0  # between two messages while none serves
_TICK = 0.1  # seconds


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
T = TypeVar("T")


@dataclass(eq=False)
class _Place(Generic[M]):
    member: M
    serves: bool = False
    error: EngineError | None = None  # why it does not
    missed: int = 0  # looks in a row that failed
    outs: int = 0  # times that it was found to fail
    next_look: float = 0.0  # by time.monotonic
    requests: set["asyncio.Future[Any]"] = field(default_factory=set)
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # of ``update``, from whatever event loop


class Pool(Generic[M]):
    """Asks one of its ``members``; a request that a server fails is asked elsewhere.

    A server that fails gets no requests until it has been found ready and has been updated: from then on it is looked
    at with growing pauses. Those that serve are looked at every few seconds, so that one which hangs loses its requests
    to others. All of it happens in the event loops of the callers.

    Args:
        seats: requests that a server gets at a time; more wait.
        attempts: of one request, before it is given up as the one at fault.
        wait_seconds: how long requests wait when no server is left, before EngineGone is raised.
    """

    def __init__(self, members: Sequence[M], *, seats: int, attempts: int, wait_seconds: float) -> None:
        self._places = [_Place(member) for member in members]
        self._seats, self._attempts, self._wait_seconds = seats, attempts, wait_seconds
        self._watches: dict[asyncio.AbstractEventLoop, list[asyncio.Task[None]]] = {}
        self._queue: deque[asyncio.Future[None]] = deque()  # of those who wait for a seat
        self._alone_since = self._told = 0.0

    @property
    def serving(self) -> list[M]:
        """The members that get requests at the moment."""
        return [place.member for place in self._places if place.serves]

    @asynccontextmanager
    async def asking(self, request: Callable[[M], Coroutine[Any, Any, T]], affinity: str = "") -> AsyncIterator[T]:
        """The answer of one server, whose seat is held while the context is open.

        It is always the same server for equal ``affinity``, while that has room.

        Raises:
            EngineGone: no server is left, and none came within ``wait_seconds``.
            ServerFailed: every attempt failed.
            EngineError: what ``request`` raises otherwise; it is not asked again.
        """
        self._watch()
        failed: list[_Place[M]] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ServerFailed),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            stop=stop_after_attempt(self._attempts),
            reraise=True,
        ):
            with attempt:
                async with AsyncExitStack() as stack:
                    place = await stack.enter_async_context(self._seat(affinity, failed))
                    failed.append(place)  # unless it answers
                    answer = await self._asked(place, request)
                    held = stack.pop_all()
        async with held:
            yield answer

    async def update(self) -> None:
        """Update every server that answers, and return. What one that was well does not take is raised."""
        self._watch()
        now = time.monotonic()
        due = [one for one in self._places if one.next_look <= now or not isinstance(one.error, ServerFailed)]
        well = [place.error is None for place in due]
        found = await asyncio.gather(*(self._look(place, whole=True) for place in due), return_exceptions=True)
        for error, was_well in zip(found, well, strict=True):
            if isinstance(error, EngineError) and (isinstance(error, ServerFailed) or not was_well):
                continue  # it is out, and looked at again
            if isinstance(error, BaseException):
                raise error

    async def wait(self) -> None:
        """Return as soon as a server serves. Raises EngineGone if that takes longer than ``wait_seconds``."""
        self._watch()
        with off_the_clock():
            while not self.serving:
                now = time.monotonic()
                waited = now - self._alone_since
                why = "; ".join(str(one.error or f"{one.member.url} has not been asked yet") for one in self._places)
                hopeless = all(place.error and not isinstance(place.error, ServerFailed) for place in self._places)
                if hopeless or waited > self._wait_seconds:
                    raise EngineGone(
                        f"no server to generate with for {waited:.0f} s ({why}): start the servers again; a run that "
                        "this ends goes on by the same command"
                    )
                if now - self._told >= _TELL_SECONDS and (waited > 1.0 or all(place.error for place in self._places)):
                    self._told = now
                    log.warning("waiting for a server, for %.0f s more: %s", self._wait_seconds - waited, why)
                await asyncio.sleep(_TICK)

    @asynccontextmanager
    async def _seat(self, affinity: str, failed: Sequence[_Place[M]]) -> AsyncIterator[_Place[M]]:
        while True:
            await self.wait()
            if place := self._choose(affinity, failed):
                break
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await asyncio.wait([turn], timeout=1.0)  # a server that comes back has seats too, and calls nobody
            finally:
                turn.cancel()
        place.in_flight += 1
        try:
            yield place
        finally:
            place.in_flight -= 1
            while self._queue:
                if not (turn := self._queue.popleft()).done():
                    turn.set_result(None)
                    break

    def _choose(self, affinity: str, failed: Sequence[_Place[M]]) -> _Place[M] | None:
        """A server with a free seat: the one that ``affinity`` points to, else the least loaded; not one of ``failed``
        if there is another.

        The first of an order that depends on the key and the servers alone (rendezvous hashing): when a server goes,
        only its own keys move. One with more than half its seats taken, and a quarter above the mean, is passed over.
        """
        serving = [place for place in self._places if place.serves]
        free = [place for place in serving if place.in_flight < self._seats]
        if not free:
            return None
        free = [place for place in free if place not in failed] or free
        mean = sum(place.in_flight for place in serving) / len(serving)
        roomy = [place for place in free if place.in_flight < max(self._seats / 2, 1.25 * mean)]
        if affinity and roomy:
            return max(roomy, key=lambda place: hashlib.sha256(f"{affinity} {place.member.url}".encode()).digest())
        return min(free, key=lambda place: place.in_flight)

    async def _asked(self, place: _Place[M], request: Callable[[M], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.ensure_future(request(place.member))
        place.requests.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and not current.cancelling():  # not the caller: ``_out`` has cancelled it
                raise ServerFailed(f"{place.member.url} went away: {place.error}") from None
            raise
        except ServerFailed as error:
            if error.down and place.serves:
                self._out(place, error)
            raise
        finally:
            place.requests.discard(task)

    def _watch(self) -> None:
        """See to it that somebody in this event loop looks after the servers."""
        loop = asyncio.get_running_loop()
        if loop not in self._watches:
            self._watches = {other: tasks for other, tasks in self._watches.items() if not other.is_closed()}
            self._watches[loop] = [loop.create_task(self._tend(place)) for place in self._places]
            self._alone_since = time.monotonic()  # nobody has looked since the loop before this one

    async def _tend(self, place: _Place[M]) -> None:
        while True:
            if time.monotonic() >= place.next_look:
                try:
                    await self._look(place)
                except EngineError:
                    pass  # it is in place.error
            await asyncio.sleep(_TICK)

    async def _look(self, place: _Place[M], whole: bool = False) -> None:
        """Is it there? If it was not, or for ``whole``, bring it up to date first."""
        async with alone(place.lock):
            whole, outs = whole or not place.serves, place.outs
            try:
                await (place.member.update() if whole else place.member.ready())
            except EngineError as error:
                place.missed += 1
                if not place.serves or place.missed >= _MISSED or (whole and isinstance(error, ServerFailed)):
                    self._out(place, error, give_up=True)
                raise
            finally:
                pause = _READY_SECONDS if place.serves else min(_FIRST_RETRY * 2**place.missed, _LONGEST_RETRY)
                place.next_look = time.monotonic() + pause
            if place.outs != outs:  # it failed meanwhile: what was seen may be another process
                return place.member.doubt()
            place.missed = 0
            if not place.serves:
                log.info("%s serves%s", place.member.url, " again" if place.error else "")
                place.serves, place.error = True, None

    def _out(self, place: _Place[M], error: EngineError, give_up: bool = False) -> None:
        """No requests for this server until it is updated. ``give_up``: nor any hope for those that it has."""
        place.outs += 1
        if place.serves:
            place.missed, place.next_look = 0, time.monotonic() + _FIRST_RETRY
        if place.serves or place.error is None:
            log.warning("%s is out: %s", place.member.url, error)
        if place.serves and len(self.serving) == 1:
            self._alone_since = time.monotonic()
        place.serves, place.error = False, error
        place.member.doubt()
        if give_up:
            for task in list(place.requests):
                task.get_loop().call_soon_threadsafe(task.cancel)


@asynccontextmanager
async def alone(lock: threading.Lock) -> AsyncIterator[None]:
    """Hold a lock that tasks of other event loops want as well."""
    while not lock.acquire(blocking=False):
        await asyncio.sleep(_TICK)
    try:
        yield
    finally:
        lock.release()
