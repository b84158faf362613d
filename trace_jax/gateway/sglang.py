"""Requests passed on to SGLang servers: bodies unchanged except for model and prompt, responses byte for byte."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from starlette.responses import Response, StreamingResponse

from trace_jax.chat.renderer import Renderer
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerInfo, SGLangServer
from trace_jax.gateway.backend import Answer
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.off_loop import sized
from trace_jax.gateway.prompt_limit import PromptLimit
from trace_jax.gateway.prompts import server_prompt
from trace_jax.gateway.request import TEXT, CompletionRequest

logger = logging.getLogger(__name__)

# Of one request, since clients are not trusted and a request may end the server that gets it; and for a short time
# without servers, but not for an outage.
ATTEMPTS, WAIT_SECONDS = 3, 2.0

# No other header of a client goes to a server: no Authorization, no Cookie, nothing else that may be a secret.
_FORWARDED = ("accept", "traceparent", "tracestate", "x-request-id")
_RETURNED = ("content-length", "content-type", "retry-after", "x-request-id")


class SGLangBackend:
    """Requests go to the conversation's server, or to another one while that is away or full.

    Args:
        servers: how each of the servers was started.
        vocab_size: token ids in requests are checked against it, since one outside ends an SGLang server.
        renderer: writes the prompts of chats, as in training; the servers' own differ, at least where there are tools.
            Servers write them if it cannot, or if a request says something of the template.
        characters_per_token: of the longest token of the vocabulary.
    """

    def __init__(
        self,
        engine: SGLangEngine,
        servers: Sequence[ServerInfo],
        vocab_size: int,
        renderer: Renderer,
        characters_per_token: float,
    ) -> None:
        self._engine, self._vocab_size, self._renderer = engine, vocab_size, renderer
        self.name = servers[0].model
        self.max_rank = min((info.max_rank for info in servers if info.max_rank is not None), default=None)
        context = max(info.context for info in servers)
        self._limit = PromptLimit(context, characters_per_token, "shorten it, or start the servers with more context")
        self._logged: set[str] = set()  # why servers have written prompts

    async def load(self, name: str, directory: Path) -> None:
        await self._engine.load_adapter(name, directory)

    async def unload(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def ready(self) -> bool:
        return bool(self._engine.serving)

    async def prepare(self, request: CompletionRequest) -> Answer:
        """Check token ids and lengths, and write the prompt as in training.

        Raises ApiError (400) for a token id outside the vocabulary and for a prompt that no server has room for.
        """
        return partial(self._answer, request, await asyncio.to_thread(self._prepare, request))

    @asynccontextmanager
    async def _answer(
        self, request: CompletionRequest, members: Mapping[str, Any], adapter: str | None, affinity: str
    ) -> AsyncIterator[Response]:
        """A server's response, its errors included; leaving the context early makes it abort the request.

        Raises EngineGone when no server is up, and ServerFailed when each server that was asked broke off.
        """
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        headers |= {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        busy: Response | None = None

        async def ask(server: SGLangServer, name: str | None) -> aiohttp.ClientResponse:
            nonlocal busy
            # SGLang takes a model without a colon for the base, whatever its name, so an adapter follows the base.
            model = f"{self.name}:{name}" if name else self.name
            body = await sized(len(request.text), lambda: request.body({"model": model, **members}))
            reply = await server.forward(request.path, body, headers)
            busy = None
            if name and reply.status == 400 and await server.lost(name, await reply.text()):
                raise ServerFailed(f"{server.url} has lost its adapters")
            if reply.status == 429 or reply.status >= 500:  # the request may be at fault: the server is not taken out
                busy = Response(await reply.read(), reply.status, _returned(reply, members))
                raise ServerBusy(f"{server.url}{request.path} answered {reply.status}")
            return reply

        try:
            async with self._engine.response(ask, adapter, affinity) as reply, reply:
                returned = _returned(reply, members)
                if reply.status >= 400:
                    yield Response(await reply.read(), reply.status, returned)
                else:
                    yield StreamingResponse(reply.content.iter_any(), reply.status, returned)
                return
        except ServerFailed:
            if busy is None:
                raise
        yield busy

    def _prepare(self, request: CompletionRequest) -> dict[str, Any]:
        """The members that the request's body gets, except for the model."""
        for name in ("input_ids", "prompt", "stop_token_ids"):
            self._check_ids(name, request.fields.get(name))
        if request.path == TEXT:
            self._check_prompts(request.fields.get("prompt"))
        prompt = server_prompt(request, self._renderer, self._limit)
        if prompt.why and prompt.why not in self._logged:
            self._logged.add(prompt.why)
            logger.warning(
                "servers write prompts by their own template, not as in training, for requests with %s", prompt.why
            )
        return prompt.members

    def _check_prompts(self, given: Any) -> None:
        """Raise ApiError for a prompt, or one of several, that no server has room for."""
        for prompt in given if _all(given, str) or _all(given, list) else [given]:
            if isinstance(prompt, str):
                self._limit.check_text(prompt, param="prompt")
            elif isinstance(prompt, list):
                self._limit.check_tokens(len(prompt), param="prompt")

    def _check_ids(self, name: str, given: Any) -> None:
        """Raise ApiError for a token id outside the vocabulary, in whatever form a server would read one."""
        if given is None or (name == "prompt" and (isinstance(given, str) or _all(given, str))):
            return
        rows = given if name == "prompt" and _all(given, list) else [given]
        for item in (item for row in rows for item in (row if isinstance(row, list) else [row])):
            if type(item) is not int or not 0 <= item < self._vocab_size:
                what = f"token id {str(item)[:40]} is outside the vocabulary of {self._vocab_size}"
                raise ApiError(400, f"{what}: send ids of this model", param=name)


def _all(given: Any, kind: type) -> bool:
    return isinstance(given, list) and all(isinstance(item, kind) for item in given)


def _returned(reply: aiohttp.ClientResponse, members: Mapping[str, Any]) -> dict[str, str]:
    """The headers that a client gets, and who wrote the prompt."""
    returned = {name: reply.headers[name] for name in _RETURNED if name in reply.headers}
    return returned | {"X-Trace-Prompt": "training" if "input_ids" in members else "server"}
