"""Work that takes too long for the event loop when a body is large."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LARGE = 1 << 16  # bytes of a body; a smaller one takes about a millisecond

# One large body at a time: parsing keeps the interpreter lock, and several would keep it one after the other.
_thread = ThreadPoolExecutor(1, "large-bodies")


async def sized(size: int, work: Callable[[], T]) -> T:
    """The result of ``work`` on a body of ``size`` bytes, done in a thread if that is large."""
    if size <= LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
