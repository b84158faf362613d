"""Conversations keep the decision that was made at their first request."""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from trace_jax.contract.routing import RouteDecision
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.request import CompletionRequest, opening

HEADER = "x-trace-conversation"
_LONGEST = 256


def conversation_name(request: CompletionRequest) -> str:
    """The conversation that a request belongs to: as its header says, otherwise a hash of the conversation's opening.

    Raises ApiError for a header of more than 256 characters, or of others than printable ASCII.
    """
    named = request.headers.get(HEADER)
    if named is None:
        # Chats and completions differ in the names of their fields. Fields that are no text may hold half a character.
        fields = json.dumps(opening(request).fields, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if not 0 < len(named) <= _LONGEST or not named.isascii() or not named.isprintable():
        raise ApiError(400, f"{HEADER} must be 1 to {_LONGEST} printable ASCII characters: shorten it", param=HEADER)
    return named


@dataclass
class _Pin:
    decision: "asyncio.Task[RouteDecision]"
    used: float


class Pins:
    """The decisions of conversations: at most ``limit``, each until it has not been used for ``seconds``.

    The least recently used one is forgotten first. A conversation that comes back later is routed again.
    """

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._seconds, self._clock = limit, seconds, clock
        self._pins: OrderedDict[str, _Pin] = OrderedDict()  # by time of use

    def __len__(self) -> int:
        return len(self._pins)

    async def get(self, key: str, decide: Callable[[], Awaitable[RouteDecision]]) -> RouteDecision:
        """The decision of the conversation ``key``, made by ``decide`` at its first request.

        Requests that come while it is made wait for the same one. A client that leaves does not stop it.
        """
        now = self._clock()
        while self._pins and next(iter(self._pins.values())).used + self._seconds <= now:
            self._pins.popitem(last=False)
        pin = self._pins.pop(key, None)
        if pin is None:
            pin = _Pin(asyncio.ensure_future(_run(decide)), now)
            pin.decision.add_done_callback(partial(self._forget_failed, key, pin))
        pin.used = now
        self._pins[key] = pin
        if len(self._pins) > self._limit:
            self._pins.popitem(last=False)
        return await asyncio.shield(pin.decision)

    def _forget_failed(self, key: str, pin: _Pin, decision: "asyncio.Task[RouteDecision]") -> None:
        """Let the next request try again, whether or not a request has waited for this decision."""
        if (decision.cancelled() or decision.exception()) and self._pins.get(key) is pin:
            del self._pins[key]


async def _run(decide: Callable[[], Awaitable[RouteDecision]]) -> RouteDecision:
    return await decide()
