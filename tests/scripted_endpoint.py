"""An OpenAI-compatible endpoint in this process that says what a test tells it to, faults included."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Reply = Response | dict[str, Any] | float  # a body as it is, a completion, or seconds to hang


def said(text: str | None, *, calls: list[tuple[str, Any]] = (), usage: Any = (7, 3), **choice: Any) -> dict[str, Any]:
    """A completion. ``calls`` are (name, arguments); ``usage`` None leaves the counts out."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    message |= choice.pop("message", {})
    done = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message, **choice}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if isinstance(usage, tuple) else usage
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [done]}
    return whole if counts is None else {**whole, "usage": counts}


def refusal(status: int, message: str = "no", code: str | None = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": {"message": message, "type": "t", "code": code}}, status, named)


def raw(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def dripping(seconds: float = 60.0) -> Response:
    """A body that comes byte by byte, ten a second, and never ends in time."""

    async def bytes_() -> AsyncIterator[bytes]:
        for _ in range(int(seconds * 10)):
            yield b" "
            await asyncio.sleep(0.1)

    return StreamingResponse(bytes_(), media_type="application/json")


def slow(body: dict[str, Any], seconds: float) -> Response:
    """``body`` in ten pieces over ``seconds``."""
    data = json.dumps(body).encode()

    async def pieces() -> AsyncIterator[bytes]:
        size = len(data) // 10 + 1
        for start in range(0, len(data), size):
            yield data[start : start + size]
            await asyncio.sleep(seconds / 10)

    return StreamingResponse(pieces(), media_type="application/json")


def endless() -> Response:
    """A body that comes as fast as it is read, and has no end."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"choices": "'
        while True:
            yield b"x" * (1 << 20)
            await asyncio.sleep(0)  # or the server never learns that its client has left, and sends for ever

    return StreamingResponse(pieces(), media_type="application/json")


def dying(body: dict[str, Any]) -> Response:
    """Half of ``body``, after which the connection breaks."""
    data = json.dumps(body).encode()

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionError("the endpoint dies")

    return StreamingResponse(half(), media_type="application/json")


@dataclass
class Endpoint:
    """Replies in turn with ``script``, then with what ``reply`` makes of a request's body."""

    url: str = ""
    script: list[Reply] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], Reply] = lambda body: said("hello")
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0
    delay: float = 0.0
    models: Reply = field(default_factory=lambda: {"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def listed(self, request: Request) -> Response:
        return JSONResponse(self.models) if isinstance(self.models, dict) else self.models

    async def answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            reply = self.script.pop(0) if self.script else self.reply(body)
            await asyncio.sleep(reply if isinstance(reply, float) else self.delay)
        finally:
            self.in_flight -= 1
        if isinstance(reply, dict):
            return JSONResponse(reply)
        return reply if isinstance(reply, Response) else JSONResponse(said("late"))


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """An endpoint at ``url`` while the block runs."""
    found = Endpoint()
    completions = Route("/v1/chat/completions", found.answer, methods=["POST"])
    app = Starlette(routes=[completions, Route("/v1/models", found.listed)])
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture
def served() -> Iterator[Endpoint]:
    """An endpoint for one test."""
    with endpoint() as found:
        yield found
