"""Bodies of requests: read within bounds of size and time, and given back to the system afterwards."""

import asyncio
import contextlib
import ctypes
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.limits import ClientDisconnected

_SECONDS = 60.0  # until the last byte of a body
_PAUSE = 1.0  # seconds without a byte, after which no more of a refused body is awaited
_THROWN_AWAY = 16  # times the largest body, of one that is refused
_HELD = 16  # times the largest body, for all bodies that are held at a time


class Bodies:
    """Reads bodies, and bounds the memory of all that are held at a time.

    Args:
        limit: bytes of one body.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._left = limit, _HELD * limit

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, whose bytes count as held while the context is open.

        Raises ApiError: 413 for a body above the limit, 408 for one that does not come in time, 429 when the bodies of
        all requests together are too large. Raises ClientDisconnected.
        """
        received = bytearray()
        try:
            await self._receive(request, received)
            yield bytes(received)
        finally:
            self._left += len(received)

    async def _receive(self, request: Request, received: bytearray) -> None:
        too_large = ApiError(413, f"the body is larger than {self._limit} bytes, this gateway's limit: send less")
        if int(request.headers.get("content-length", 0)) > self._limit:
            if "expect" not in request.headers:  # such a client waits before it sends its body
                await _throw_away(request, _THROWN_AWAY * self._limit)
            raise too_large
        try:
            async with asyncio.timeout(_SECONDS):
                async for part in request.stream():
                    received += part
                    self._left -= len(part)
                    if len(received) > self._limit:
                        self._left += len(received)
                        received.clear()
                        await _throw_away(request, _THROWN_AWAY * self._limit)
                        raise too_large
                    if self._left < 0:
                        raise ApiError(
                            429,
                            "the bodies of the requests that are being served are too large together: try again",
                            code="rate_limit_exceeded",
                            headers={"Retry-After": "1"},
                        )
        except TimeoutError:
            why = f"the body has not come within {_SECONDS:.0f} s: send it at once"
            raise ApiError(408, why, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise ClientDisconnected from None


async def _throw_away(request: Request, size: int) -> None:
    """Read up to ``size`` bytes of a body that is refused: a client that sends it all first would not see why."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_SECONDS), asyncio.timeout(_PAUSE) as pause:
            async for part in request.stream():
                size -= len(part)
                if size < 0:
                    return
                pause.reschedule(loop.time() + _PAUSE)


def trim_memory() -> None:
    """Give freed memory back to the system after a large body: glibc keeps it otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
