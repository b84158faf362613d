"""How often, and for how long, a request is tried."""

import asyncio
import time

from tenacity import RetryCallState

from trace_jax.engines.sglang.server import ServerBusy, ServerTimeout
from trace_jax.environments.episode_clock import off_the_clock

_TIMEOUTS = 2  # of one request, before it is given up


class RetryPolicy:
    """When a request is given up; tenacity's ``stop``.

    A request is given up after ``attempts`` failures, after two timeouts, or after ``busy_seconds`` during which every
    server was busy.
    """

    def __init__(self, attempts: int, busy_seconds: float) -> None:
        self._attempts, self._busy_seconds = attempts, busy_seconds
        self._failures = self._timeouts = 0
        self._busy_since: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        assert state.outcome is not None
        error, now = state.outcome.exception(), time.monotonic()
        if isinstance(error, ServerBusy):
            self._busy_since = now if self._busy_since is None else self._busy_since
            return now - self._busy_since > self._busy_seconds
        self._busy_since = None
        self._failures += 1
        self._timeouts += isinstance(error, ServerTimeout)
        return self._failures >= self._attempts or self._timeouts >= _TIMEOUTS


async def sleep_between_attempts(seconds: float) -> None:
    """tenacity's ``sleep``. The time does not count as the episode's own."""
    with off_the_clock():
        await asyncio.sleep(seconds)
