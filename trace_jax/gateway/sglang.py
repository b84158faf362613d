"""Calls passed on to SGLang servers: bodies unchanged but for model and prompt, responses byte for byte."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.responses import Response, StreamingResponse

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.prompts import server_prompt
from trace_jax.gateway.wire import Call
from trace_jax.rollout.chat import Renderer
from trace_jax.rollout.engine import EngineGone
from trace_jax.rollout.sglang import SGLangEngine
from trace_jax.rollout.sglang_server import ServerFailed, Settings, SGLangServer, lost

logger = logging.getLogger(__name__)

# Clients are not trusted, and a request may kill what it meets; a moment without servers is waited for, an outage not.
ATTEMPTS, WAIT_SECONDS = 3, 2.0

# All that goes to a server of what a client sends: no Authorization, no Cookie, nothing else that may be a secret.
_FORWARDED = ("accept", "traceparent", "tracestate", "x-request-id")
_RETURNED = ("content-length", "content-type", "retry-after", "x-request-id")


class SGLangBackend:
    """Calls go to the conversation's server, or to another one while that is away or full.

    Args:
        settings: what the servers were started with.
        vocab_size: token ids in calls are checked against it, since one outside kills an SGLang server.
        renderer: writes the prompts of chats, as in training; servers write them otherwise, at least where there are
            tools. Where it cannot, or a call says something of the template, servers write them.
    """

    def __init__(
        self, engine: SGLangEngine, settings: Sequence[Settings], vocab_size: int, renderer: Renderer
    ) -> None:
        self._engine, self._vocab_size, self._renderer = engine, vocab_size, renderer
        self.name = settings[0].model
        self.max_rank = min((one.max_rank for one in settings if one.max_rank is not None), default=None)

    async def load(self, name: str, directory: Path) -> None:
        await self._engine.load_adapter(name, directory)

    async def unload(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def ready(self) -> bool:
        return bool(self._engine.serving)

    @asynccontextmanager
    async def answer(self, call: Call, adapter: str | None, affinity: str) -> AsyncIterator[Response]:
        """What a server answers, errors of its own included; leaving the context early makes it abort the request.

        Raises ApiError: 400 for a token id outside the vocabulary, 503 when no server is up, 502 when those that were
        asked broke off.
        """
        for name in ("prompt", "input_ids"):
            self._check_ids(name, call.fields.get(name))
        headers = {name: call.headers[name] for name in _FORWARDED if name in call.headers}
        headers |= {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        prompt = await asyncio.to_thread(server_prompt, call, self._renderer)

        async def ask(server: SGLangServer, name: str | None) -> aiohttp.ClientResponse:
            # A model without a colon is the base to SGLang, whatever its name, so an adapter needs the base in front.
            body = call.body({"model": f"{self.name}:{name}" if name else self.name, **prompt})
            reply = await server.forward(call.path, body, headers)
            if name and reply.status == 400 and lost(name, await reply.text()):
                raise ServerFailed(f"{server.url} has lost its adapters")
            return reply

        try:
            async with self._engine.asking(ask, adapter, affinity) as reply, reply:
                told = {name: reply.headers[name] for name in _RETURNED if name in reply.headers}
                if reply.status >= 400:
                    yield Response(await reply.read(), reply.status, told)
                else:
                    yield StreamingResponse(reply.content.iter_any(), reply.status, told)
        except EngineGone as error:
            logger.error("%s", error)
            raise ApiError(503, "no SGLang server is up: try again later", headers={"Retry-After": "5"}) from None
        except ServerFailed as error:
            logger.error("%s", error)
            raise ApiError(502, "servers broke off before they answered: try again") from None

    def _check_ids(self, name: str, value: Any) -> None:
        for item in value if isinstance(value, list) else ():
            if isinstance(item, int) and not 0 <= item < self._vocab_size:
                message = f"token id {item} is outside the vocabulary of {self._vocab_size}: send ids of this model"
                raise ApiError(400, message, param=name)
            self._check_ids(name, item)
