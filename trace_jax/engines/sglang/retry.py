"""How long a request is tried."""

import asyncio
import time

from tenacity import RetryCallState

from trace_jax.engines.deadline import off_the_clock
from trace_jax.engines.sglang.server import ServerBusy, ServerSlow

_SLOW = 2  # time-outs of one request, and it is given up


class RetryPolicy:
    """When a request is given up, for tenacity's ``stop``.

    That is after ``attempts`` failures, after two time-outs, or after ``busy_seconds`` of busy servers in a row.
    """

    def __init__(self, attempts: int, busy_seconds: float) -> None:
        self._attempts, self._busy_seconds = attempts, busy_seconds
        self._failures = self._slow = 0
        self._busy_since: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        assert state.outcome is not None
        error, now = state.outcome.exception(), time.monotonic()
        if isinstance(error, ServerBusy):
            self._busy_since = now if self._busy_since is None else self._busy_since
            return now - self._busy_since > self._busy_seconds
        self._busy_since = None
        self._failures += 1
        self._slow += isinstance(error, ServerSlow)
        return self._failures >= self._attempts or self._slow >= _SLOW


async def pause(seconds: float) -> None:
    """For tenacity's ``sleep``: no episode's own time."""
    with off_the_clock():
        await asyncio.sleep(seconds)
