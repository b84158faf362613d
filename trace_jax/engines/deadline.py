"""Time limits of an episode: on a synchronous call that may hang, and on all of it but what it waits for servers."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from types import FrameType


class Overrun(TimeoutError):
    """The body took too long; told apart from a TimeoutError of the body's own."""


class _Expired(BaseException):
    """Not an Exception, so that an environment's own ``except Exception`` cannot swallow it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Overrun if the body takes longer than ``seconds``.

    On the main thread a hanging body is interrupted (SIGALRM). On any other thread Python offers no safe way to
    interrupt it, so the error is raised when the body returns.
    """
    end = time.monotonic() + seconds
    if seconds <= 0:
        raise Overrun
    if threading.current_thread() is not threading.main_thread():
        yield
        if time.monotonic() > end:
            raise Overrun
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Expired:
        raise Overrun from None
    finally:
        signal.signal(signal.SIGALRM, previous)


_CLOCK: ContextVar[asyncio.Timeout | None] = ContextVar("clock", default=None)


@asynccontextmanager
async def episode_clock(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """``asyncio.timeout`` whose time stops in ``off_the_clock``."""
    async with asyncio.timeout(seconds) as clock:
        token = _CLOCK.set(clock)
        try:
            yield clock
        finally:
            _CLOCK.reset(token)


@contextmanager
def off_the_clock() -> Iterator[None]:
    """A wait that is not the episode's own: its clock, if it has one, stands still meanwhile."""
    clock = _CLOCK.get()
    end = None if clock is None else clock.when()
    if clock is None or end is None or clock.expired():
        yield
        return
    loop = asyncio.get_running_loop()
    left = end - loop.time()
    clock.reschedule(None)
    try:
        yield
    finally:
        clock.reschedule(loop.time() + left)
