"""Bounds of the requests that are served at a time."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from trace_jax.gateway.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all that are served at a time."""

    body_bytes: int  # of one body; all bodies that are held at a time may have 16 times as many
    requests: int  # served at a time
    seconds: float  # from the body's last byte to the end of the response, its stream included


class ClientDisconnected(Exception):
    """The client has closed the connection before the response ended."""


class ConcurrencyLimit:
    """How many requests are served at a time."""

    def __init__(self, limit: int) -> None:
        self._limit, self.in_flight = limit, 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count a request as in flight. Raises ApiError (429) when there are too many."""
        if self.in_flight >= self._limit:
            raise ApiError(
                429,
                f"{self.in_flight} requests are being served, which is this gateway's limit: try again",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, and cancel it if the client closes the connection. The body must have been read before.

    Raises ClientDisconnected in that case, and what ``work`` raises.
    """
    task, disconnected = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        task.result()
    finally:
        task.cancel()
        disconnected.cancel()
        await asyncio.gather(task, disconnected, return_exceptions=True)
        del task  # it holds its error, whose traceback holds this frame: a large body would stay until a collection


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
