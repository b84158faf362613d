"""The time limit of an episode, which does not count the time that the episode waits for servers and workers."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

_CLOCK: ContextVar[asyncio.Timeout | None] = ContextVar("clock", default=None)


@asynccontextmanager
async def episode_clock(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """``asyncio.timeout(seconds)`` that stands still inside ``off_the_clock``."""
    async with asyncio.timeout(seconds) as clock:
        token = _CLOCK.set(clock)
        try:
            yield clock
        finally:
            _CLOCK.reset(token)


def seconds_left() -> float:
    """Seconds until the episode's time is over; infinite without an episode."""
    clock = _CLOCK.get()
    end = None if clock is None else clock.when()
    return math.inf if end is None else end - asyncio.get_running_loop().time()


@contextmanager
def off_the_clock() -> Iterator[None]:
    """The episode's clock, if there is one, stands still while the block runs: the episode does not cause the wait."""
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
