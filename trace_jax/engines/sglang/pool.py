"""Many servers as one: who is there, who is asked, and what happens when one goes."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from trace_jax.engines.deadline import off_the_clock
from trace_jax.engines.sglang.request_queue import RequestQueue
from trace_jax.engines.sglang.retry import RetryPolicy, pause
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerSlow
from trace_jax.engines.sglang.server_state import M, Place
from trace_jax.errors import EngineError, EngineGone, UserError

log = logging.getLogger(__name__)

_READY_SECONDS = 5.0  # between two looks at a server that serves
_MISSED = 2  # looks in a row that find nothing, and it is out
_SLOW = 3  # requests in a row that were not answered in time, and it is out
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 15.0  # seconds between two looks at a server that is out
_TELL_SECONDS = 10.0  # between two messages while none serves
_TICK = 0.1  # seconds

T = TypeVar("T")


class Pool(Generic[M]):
    """Asks one of its ``members``; a request that a server fails is asked elsewhere.

    A server that fails gets no requests until it has been found ready and has been updated: from then on it is looked
    at with growing pauses. Those that serve are looked at every few seconds, so that one which hangs loses its requests
    to others. All of it happens in the event loop of the callers, of which there may be one after the other: one that
    stands still in the middle of a look keeps another one waiting.

    Args:
        seats: requests that a server gets at a time; more wait.
        attempts: of one request that servers fail, before it is given up as the one at fault.
        wait_seconds: how long requests wait when no server is left, or all are too busy, before they are given up.
    """

    def __init__(self, members: Sequence[M], *, seats: int, attempts: int, wait_seconds: float) -> None:
        self._places = [Place(member) for member in members]
        self._seats, self._attempts, self._wait_seconds = RequestQueue(self._places, seats), attempts, wait_seconds
        self._watches: dict[asyncio.AbstractEventLoop, list[asyncio.Task[None]]] = {}
        self._alone_since = self._told = self._ticked = 0.0

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
            ServerFailed: ``attempts`` servers failed, two did not answer in time, or all were busy for too long.
            EngineError: what ``request`` raises otherwise; it is not asked again.
        """
        self._watch()
        failed: list[Place[M]] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ServerFailed),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            stop=RetryPolicy(self._attempts, self._wait_seconds),
            sleep=pause,
            reraise=True,
        ):
            with attempt:
                async with AsyncExitStack() as stack:
                    place = await stack.enter_async_context(self._seats.take(affinity, failed, self.wait))
                    failed.append(place)  # unless it answers
                    answer = await self._asked(place, request)
                    held = stack.pop_all()
        async with held:
            async with place.held():
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

    async def _asked(self, place: Place[M], request: Callable[[M], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.ensure_future(request(place.member))
        place.requests.add(task)
        try:
            answer = await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and not current.cancelling():  # not the caller: ``_out`` has cancelled it
                raise ServerFailed(f"{place.member.url} went away: {place.error}") from None
            raise
        except ServerFailed as error:
            place.slow = place.slow + 1 if isinstance(error, ServerSlow) else 0
            if isinstance(error, ServerBusy | ServerSlow) and place.slow < _SLOW:
                place.next_look = min(place.next_look, time.monotonic() + _TICK)
            elif place.serves:
                self._out(place, error)
            raise
        finally:
            place.requests.discard(task)
        place.slow = 0
        return answer

    def _watch(self) -> None:
        """See to it that somebody in this event loop looks after the servers."""
        loop = asyncio.get_running_loop()
        if loop not in self._watches:
            self._watches = {other: tasks for other, tasks in self._watches.items() if not other.is_closed()}
            self._watches[loop] = [loop.create_task(self._tend(place)) for place in self._places]
            self._alone_since = self._ticked = time.monotonic()  # nobody has looked since the loop before this one
        self._tick()

    def _tick(self) -> None:
        """A loop that stood still, while its owner did other work, could see no server come back."""
        now = time.monotonic()
        if now - self._ticked > 10 * _TICK:
            self._alone_since += now - self._ticked
        self._ticked = now

    async def _tend(self, place: Place[M]) -> None:
        while True:
            self._tick()
            if time.monotonic() >= place.next_look:
                try:
                    await self._look(place)
                except EngineError:
                    pass  # it is in place.error
            await asyncio.sleep(_TICK)

    async def _look(self, place: Place[M], whole: bool = False) -> None:
        """Is it there? If it was not, or for ``whole``, bring it up to date first."""
        outs = place.outs
        async with alone(place.lock):
            if place.outs != outs and place.error:
                raise place.error  # found while this one waited
            whole = whole or not place.serves
            try:
                await (place.member.update() if whole else place.member.ready())
            except Exception as caught:
                error = _known(place.member.url, caught)
                place.missed += 1
                if not place.serves or place.missed >= _MISSED or (whole and isinstance(error, ServerFailed)):
                    self._out(place, error, give_up=True)
                raise error from caught
            finally:
                growing = _FIRST_RETRY * 2.0 ** min(place.missed, 10)
                pause = _READY_SECONDS if place.serves else min(growing, _LONGEST_RETRY)
                place.next_look = time.monotonic() + pause
            if place.outs != outs:  # it failed meanwhile: what was seen may be another process
                return place.member.doubt()
            place.missed = 0
            if not place.serves:
                log.info("%s serves%s", place.member.url, " again" if place.error else "")
                place.serves, place.error = True, None
                self._seats.fill()

    def _out(self, place: Place[M], error: EngineError, give_up: bool = False) -> None:
        """No requests for this server until it is updated. ``give_up``: nor any hope for those that it has."""
        place.outs += 1
        if place.serves:
            place.missed, place.slow, place.next_look = 0, 0, time.monotonic() + _FIRST_RETRY
        if place.serves or str(error) != str(place.error):
            log.warning("%s is out: %s", place.member.url, error)
        if place.serves and len(self.serving) == 1:
            self._alone_since = time.monotonic()
        place.serves, place.error = False, error
        place.member.doubt()
        if give_up:
            place.give_up()


def _known(url: str, error: Exception) -> EngineError:
    """Whatever ended a look; what no server is to blame for, as a full disk, is tried again like the rest."""
    if isinstance(error, EngineError):
        return error
    if not isinstance(error, UserError | OSError):
        log.error("%s cannot be brought up to date", url, exc_info=error)
    return EngineError(f"{url} cannot be brought up to date: {' '.join(str(error).split()) or type(error).__name__}")


@asynccontextmanager
async def alone(lock: threading.Lock) -> AsyncIterator[None]:
    """Hold a lock that tasks of other event loops want as well."""
    while not lock.acquire(blocking=False):
        await asyncio.sleep(_TICK)
    try:
        yield
    finally:
        lock.release()
