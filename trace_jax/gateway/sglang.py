"""Calls passed on to SGLang servers: bodies unchanged but for model and prompt, responses byte for byte."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.responses import Response, StreamingResponse

from trace_jax.chat.renderer import Renderer
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerInfo, SGLangServer
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.prompts import server_prompt
from trace_jax.gateway.request import Call

# Clients are not trusted, and a request may kill what it meets; a moment without servers is waited for, an outage not.
ATTEMPTS, WAIT_SECONDS = 3, 2.0

# All that goes to a server of what a client sends: no Authorization, no Cookie, nothing else that may be a secret.
_FORWARDED = ("accept", "traceparent", "tracestate", "x-request-id")
_RETURNED = ("content-length", "content-type", "retry-after", "x-request-id")


class SGLangBackend:
    """Calls go to the conversation's server, or to another one while that is away or full.

    Args:
        servers: how each of the servers was started.
        vocab_size: token ids in calls are checked against it, since one outside kills an SGLang server.
        renderer: writes the prompts of chats, as in training; servers write them otherwise, at least where there are
            tools. Where it cannot, or a call says something of the template, servers write them.
    """

    def __init__(
        self, engine: SGLangEngine, servers: Sequence[ServerInfo], vocab_size: int, renderer: Renderer
    ) -> None:
        self._engine, self._vocab_size, self._renderer = engine, vocab_size, renderer
        self.name = servers[0].model
        self.max_rank = min((info.max_rank for info in servers if info.max_rank is not None), default=None)

    async def load(self, name: str, directory: Path) -> None:
        await self._engine.load_adapter(name, directory)

    async def unload(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def ready(self) -> bool:
        return bool(self._engine.serving)

    @asynccontextmanager
    async def answer(self, call: Call, adapter: str | None, affinity: str) -> AsyncIterator[Response]:
        """What a server answers, errors of its own included; leaving the context early makes it abort the request.

        Raises ApiError (400) for a token id outside the vocabulary, EngineGone when no server is up, ServerFailed when
        those that were asked broke off.
        """
        for name in ("input_ids", "prompt", "stop_token_ids"):
            self._check_ids(name, call.fields.get(name))
        headers = {name: call.headers[name] for name in _FORWARDED if name in call.headers}
        headers |= {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        prompt = await asyncio.to_thread(server_prompt, call, self._renderer)
        refused: Response | None = None

        async def ask(server: SGLangServer, name: str | None) -> aiohttp.ClientResponse:
            nonlocal refused
            # A model without a colon is the base to SGLang, whatever its name, so an adapter needs the base in front.
            body = call.body({"model": f"{self.name}:{name}" if name else self.name, **prompt})
            reply = await server.forward(call.path, body, headers)
            refused = None
            if name and reply.status == 400 and await server.lost(name, await reply.text()):
                raise ServerFailed(f"{server.url} has lost its adapters")
            if reply.status == 429 or reply.status >= 500:  # the call may be at fault: the server is not taken out
                refused = Response(await reply.read(), reply.status, _told(reply, prompt))
                raise ServerBusy(f"{server.url}{call.path} answered {reply.status}")
            return reply

        try:
            async with self._engine.response(ask, adapter, affinity) as reply, reply:
                told = _told(reply, prompt)
                if reply.status >= 400:
                    yield Response(await reply.read(), reply.status, told)
                else:
                    yield StreamingResponse(reply.content.iter_any(), reply.status, told)
                return
        except ServerFailed:
            if refused is None:
                raise
        yield refused

    def _check_ids(self, name: str, given: Any) -> None:
        """Raise ApiError for a token id that the vocabulary has not, in whatever form a server would read as one."""
        if given is None or (name == "prompt" and (isinstance(given, str) or _all(given, str))):
            return
        rows = given if name == "prompt" and _all(given, list) else [given]
        for item in (item for row in rows for item in (row if isinstance(row, list) else [row])):
            if type(item) is not int or not 0 <= item < self._vocab_size:
                what = f"token id {str(item)[:40]} is outside the vocabulary of {self._vocab_size}"
                raise ApiError(400, f"{what}: send ids of this model", param=name)


def _all(given: Any, kind: type) -> bool:
    return isinstance(given, list) and all(isinstance(item, kind) for item in given)


def _told(reply: aiohttp.ClientResponse, prompt: Mapping[str, Any]) -> dict[str, str]:
    """What a client gets of the headers, and whether the prompt was written as in training."""
    told = {name: reply.headers[name] for name in _RETURNED if name in reply.headers}
    return told | {"X-Trace-Prompt": "training" if "input_ids" in prompt else "server"}
