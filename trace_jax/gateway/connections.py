"""Connections that cannot hold up others: uvicorn's protocol with the time-outs and the bound that it lacks.

uvicorn (0.54) closes a connection that is idle between two requests, but waits without end for the first byte of the
first request, for the rest of a request's head, and for a client that does not read its response. Its
``limit_concurrency`` counts all connections, so that idle ones keep every other client out.
"""

import asyncio
import socket
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from trace_jax.gateway.errors import ApiError

_HEAD_SECONDS = 10.0  # for the head of a request, from the connection or from the end of the response before it
_STALLED_SECONDS = 60.0  # for a client to read what was sent
_READ_BYTES = 1 << 10  # parsed at a time: 1 KiB in chunks of one byte takes 2 ms
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send small writes at once.

    asyncio asks for that only if it makes the socket itself. Otherwise a streamed response, which is written in several
    parts, waits 40 ms for the client's delayed acknowledgement of the first. Raises OSError.
    """
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    return listener


class GuardedProtocol(H11Protocol):
    """One connection. It is closed if a request's head does not come in time, or if its client stops reading.

    There are at most ``max_connections``. A new one above that takes the place of the connection that has waited
    longest for a request or the rest of one. If there is none, the new one gets status 503.
    """

    max_connections: ClassVar[int]
    waiting: "ClassVar[dict[GuardedProtocol, None]]"  # for a request or the rest of one, the longest first

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None
        self._unparsed = bytearray()
        self._parsing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # ``pause_writing`` is called whenever the client does not keep up
        if len(self.connections) > self.max_connections:
            self._make_room()
        self._update()

    def data_received(self, data: bytes) -> None:
        """Parse a little, and the rest after the event loop has had a turn."""
        self._unparsed += data
        if not self._parsing:
            self._parse()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        for timer in (self._head_timer, self._stalled_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in OpenAI's error shape."""
        self.transport.write(_refusal(ApiError(400, f"{msg} Send HTTP/1.1.")))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_timer = self.loop.call_later(_STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()

    def _parse(self) -> None:
        self._parsing = False
        if self.transport.is_closing():
            return
        size = len(self._unparsed) if self._in_plain_body() else _READ_BYTES
        data = bytes(self._unparsed[:size])
        del self._unparsed[:size]
        super().data_received(data)
        self._update()
        if self._unparsed:
            self._parsing = True
            self.transport.pause_reading()
            self.loop.call_soon(self._parse)
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _in_plain_body(self) -> bool:
        """True within a body that is not in chunks, which costs nothing to parse."""
        within = self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete
        return within and all(name != b"transfer-encoding" for name, _ in self.headers)

    def _update(self) -> None:
        """Note what the connection waits for. The time for a head does not start again when a part of it comes."""
        waits_for_head = self.cycle is None or self.cycle.response_complete
        if not waits_for_head and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        elif waits_for_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)
        if waits_for_head or self.cycle.more_body:
            self.waiting.setdefault(self, None)
        else:
            self.waiting.pop(self, None)

    def _make_room(self) -> None:
        longest = next(iter(self.waiting), None)
        if longest is not None:
            del self.waiting[longest]
            longest.transport.abort()
        else:
            self.transport.write(_refusal(ApiError(503, "too many connections: try again")))
            self.transport.close()


def guarded(most: int) -> type[GuardedProtocol]:
    """The protocol for one server with at most ``most`` connections: uvicorn's setting ``http``."""

    class Guarded(GuardedProtocol):
        max_connections = most
        waiting = {}

    return Guarded


def _refusal(error: ApiError) -> bytes:
    """A response outside of ASGI, after which the connection is closed."""
    body = bytes(error.response().body)
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
