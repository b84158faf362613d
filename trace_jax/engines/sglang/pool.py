"""Many servers as one: which of them serve, which gets a request, and what happens when one fails."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from trace_jax.engines.sglang.request_queue import RequestQueue
from trace_jax.engines.sglang.retry import RetryPolicy, sleep_between_attempts
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerTimeout
from trace_jax.engines.sglang.server_state import S, ServerState
from trace_jax.environments.episode_clock import off_the_clock
from trace_jax.errors import EngineError, EngineGone, UserError

log = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0  # between two checks of a server that serves
_FAILED_CHECKS = 2  # in a row, before a server is taken out
_TIMEOUTS = 3  # of requests in a row, before a server is taken out
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 15.0  # seconds between two checks of a server that was taken out
_WARN_SECONDS = 10.0  # between two warnings while no server serves
_TICK = 0.1  # seconds

T = TypeVar("T")


class Pool(Generic[S]):
    """Sends each request to one of ``servers``, and to another one if that server fails it.

    A server that fails is taken out: it gets no requests until a check finds it ready and it has been updated. The time
    between these checks grows. Servers that serve are checked every few seconds, so that a server which hangs loses its
    requests to the others. All of this runs in the event loop of the callers. There may be several such loops, one
    after the other; a loop that stops in the middle of a check makes the next loop wait for that server.

    Args:
        slots: requests that a server has at a time; further requests wait.
        attempts: of a request that servers fail, before the request itself is taken to be at fault.
        wait_seconds: how long requests wait while no server is left, or all are busy.
    """

    def __init__(self, servers: Sequence[S], *, slots: int, attempts: int, wait_seconds: float) -> None:
        self._servers = [ServerState(server) for server in servers]
        self._queue = RequestQueue(self._servers, slots)
        self._attempts, self._wait_seconds = attempts, wait_seconds
        self._monitors: dict[asyncio.AbstractEventLoop, list[asyncio.Task[None]]] = {}
        self._down_since = self._warned = self._ticked = 0.0

    @property
    def serving(self) -> list[S]:
        """The servers that get requests at the moment."""
        return [state.server for state in self._servers if state.serves]

    @asynccontextmanager
    async def response(self, request: Callable[[S], Coroutine[Any, Any, T]], affinity: str = "") -> AsyncIterator[T]:
        """The response of one server to ``request``. The server's slot is held while the context is open.

        Requests of equal ``affinity`` go to the same server while it has room.

        Raises:
            EngineGone: no server is left, and none came back within ``wait_seconds``.
            ServerFailed: ``attempts`` servers failed, two did not answer in time, or all were busy for too long.
            EngineError: any other error of ``request``, which is then not sent again.
        """
        self._start_monitors()
        failed: list[ServerState[S]] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ServerFailed),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            stop=RetryPolicy(self._attempts, self._wait_seconds),
            sleep=sleep_between_attempts,
            reraise=True,
        ):
            with attempt:
                async with AsyncExitStack() as stack:
                    state = await stack.enter_async_context(self._queue.slot(affinity, failed, self.wait))
                    failed.append(state)  # unless it answers
                    response = await self._send(state, request)
                    slot = stack.pop_all()
        async with slot:
            async with state.streaming():
                yield response

    async def update(self) -> None:
        """Update every server that answers. Raises the error of a server that was well and cannot be updated."""
        self._start_monitors()
        now = time.monotonic()
        due = [state for state in self._servers if state.next_check <= now or not isinstance(state.error, ServerFailed)]
        well = [state.error is None for state in due]
        found = await asyncio.gather(*(self._check(state, update=True) for state in due), return_exceptions=True)
        for error, was_well in zip(found, well, strict=True):
            if isinstance(error, EngineError) and (isinstance(error, ServerFailed) or not was_well):
                continue  # it was taken out, and is checked again
            if isinstance(error, BaseException):
                raise error

    async def wait(self) -> None:
        """Return as soon as a server serves. Raises EngineGone if that takes longer than ``wait_seconds``."""
        self._start_monitors()
        with off_the_clock():
            while not self.serving:
                now = time.monotonic()
                waited = now - self._down_since
                why = "; ".join(
                    str(state.error or f"{state.server.url} was not checked yet") for state in self._servers
                )
                hopeless = all(state.error and not isinstance(state.error, ServerFailed) for state in self._servers)
                if hopeless or waited > self._wait_seconds:
                    raise EngineGone(
                        f"no server to generate with for {waited:.0f} s ({why}): start the servers again; the same "
                        "command then continues a run that this has ended"
                    )
                all_failed = all(state.error for state in self._servers)
                if now - self._warned >= _WARN_SECONDS and (waited > 1.0 or all_failed):
                    self._warned = now
                    log.warning("waiting for a server, for %.0f s more: %s", self._wait_seconds - waited, why)
                await asyncio.sleep(_TICK)

    async def _send(self, state: ServerState[S], request: Callable[[S], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.ensure_future(request(state.server))
        state.pending.add(task)
        try:
            response = await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and not current.cancelling():  # ``_take_out`` has cancelled it, not the caller
                raise ServerFailed(f"{state.server.url} went away: {state.error}") from None
            raise
        except ServerFailed as error:
            state.timeouts = state.timeouts + 1 if isinstance(error, ServerTimeout) else 0
            if isinstance(error, ServerBusy | ServerTimeout) and state.timeouts < _TIMEOUTS:
                state.next_check = min(state.next_check, time.monotonic() + _TICK)
            elif state.serves:
                self._take_out(state, error)
            raise
        finally:
            state.pending.discard(task)
        state.timeouts = 0
        return response

    def _start_monitors(self) -> None:
        """Start a task in this event loop that checks the servers, unless there is one."""
        loop = asyncio.get_running_loop()
        if loop not in self._monitors:
            self._monitors = {other: tasks for other, tasks in self._monitors.items() if not other.is_closed()}
            self._monitors[loop] = [loop.create_task(self._monitor(state)) for state in self._servers]
            self._down_since = self._ticked = time.monotonic()  # nothing was checked since the last loop
        self._tick()

    def _tick(self) -> None:
        """Do not count the time in which the loop stood still: no server could be seen to come back."""
        now = time.monotonic()
        if now - self._ticked > 10 * _TICK:
            self._down_since += now - self._ticked
        self._ticked = now

    async def _monitor(self, state: ServerState[S]) -> None:
        while True:
            self._tick()
            if time.monotonic() >= state.next_check:
                try:
                    await self._check(state)
                except EngineError:
                    pass  # it is in state.error
            await asyncio.sleep(_TICK)

    async def _check(self, state: ServerState[S], update: bool = False) -> None:
        """Check that the server is ready. If it was taken out, or for ``update``, update it first."""
        failures = state.failures
        async with locked(state.lock):
            if state.failures != failures and state.error:
                raise state.error  # another check has found it while this one waited
            update = update or not state.serves
            try:
                await (state.server.update() if update else state.server.ready())
            except Exception as caught:
                error = _as_engine_error(state.server.url, caught)
                state.failed_checks += 1
                if (
                    not state.serves
                    or state.failed_checks >= _FAILED_CHECKS
                    or (update and isinstance(error, ServerFailed))
                ):
                    self._take_out(state, error, cancel=True)
                raise error from caught
            finally:
                growing = _FIRST_RETRY * 2.0 ** min(state.failed_checks, 10)
                pause = _CHECK_SECONDS if state.serves else min(growing, _LONGEST_RETRY)
                state.next_check = time.monotonic() + pause
            if state.failures != failures:  # it failed during the check, which may have seen the process before
                return state.server.invalidate()
            state.failed_checks = 0
            if not state.serves:
                log.info("%s serves%s", state.server.url, " again" if state.error else "")
                state.serves, state.error = True, None
                self._queue.assign()

    def _take_out(self, state: ServerState[S], error: EngineError, cancel: bool = False) -> None:
        """Send this server no requests until it has been updated. ``cancel`` ends the requests that it has."""
        state.failures += 1
        if state.serves:
            state.failed_checks, state.timeouts, state.next_check = 0, 0, time.monotonic() + _FIRST_RETRY
        if state.serves or str(error) != str(state.error):
            log.warning("%s is out: %s", state.server.url, error)
        if state.serves and len(self.serving) == 1:
            self._down_since = time.monotonic()
        state.serves, state.error = False, error
        state.server.invalidate()
        if cancel:
            state.cancel_all()


def _as_engine_error(url: str, error: Exception) -> EngineError:
    """The error of a check as an EngineError. One that no server caused, such as a full disk, is tried again too."""
    if isinstance(error, EngineError):
        return error
    if not isinstance(error, UserError | OSError):
        log.error("%s cannot be brought up to date", url, exc_info=error)
    return EngineError(f"{url} cannot be brought up to date: {' '.join(str(error).split()) or type(error).__name__}")


@asynccontextmanager
async def locked(lock: threading.Lock) -> AsyncIterator[None]:
    """Hold a lock that tasks of other event loops may hold, without blocking the loop."""
    while not lock.acquire(blocking=False):
        await asyncio.sleep(_TICK)
    try:
        yield
    finally:
        lock.release()
