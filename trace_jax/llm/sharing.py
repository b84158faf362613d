"""Equal requests that are in flight at one time are sent once."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Running(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class SharedRequests(Generic[T]):
    """``run`` gives everybody who wants the same key the same result, or the same error.

    The request ends with the last who waits for it: whoever is cancelled takes it from nobody else.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running[T]] = {}

    async def run(self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of ``make()``, which is called if no request for ``key`` is in flight."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(asyncio.create_task(make()))
        running.waiters += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiters -= 1
            if running.task.done() or not running.waiters:
                running.task.cancel()
                if self._running.get(key) is running:
                    del self._running[key]
