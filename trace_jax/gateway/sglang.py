"""Calls passed on to SGLang servers: bodies unchanged but for the model, responses byte for byte."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.responses import Response, StreamingResponse

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.servers import CONNECT_SECONDS, Servers, reason
from trace_jax.gateway.wire import Call

logger = logging.getLogger(__name__)

_CALL = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)  # whoever asks bounds the whole of it

# All that goes to a server of what a client sends: no Authorization, no Cookie, nothing else that may be a secret.
_FORWARDED = ("accept", "traceparent", "tracestate", "x-request-id")
_RETURNED = ("content-length", "content-type", "retry-after", "x-request-id")


class SGLangBackend:
    """Calls go to the conversation's server, or to the next one while that is down.

    Args:
        vocab_size: token ids in calls are checked against it, since one outside kills an SGLang server.
    """

    def __init__(self, servers: Servers, vocab_size: int) -> None:
        self._servers, self._vocab_size = servers, vocab_size

    @property
    def name(self) -> str:
        return self._servers.name

    @property
    def max_rank(self) -> int | None:
        return self._servers.max_rank

    async def load(self, name: str, directory: Path) -> None:
        await self._servers.load(name, directory)

    async def unload(self, name: str) -> None:
        await self._servers.unload(name)

    def ready(self) -> bool:
        return bool(self._servers.order(""))

    @asynccontextmanager
    async def answer(self, call: Call, adapter: str | None, affinity: str) -> AsyncIterator[Response]:
        """What a server answers, errors of its own included; leaving the context early makes it abort the request.

        Raises ApiError: 400 for a token id outside the vocabulary, 503 when no server is up, 502 when all that are
        broke off.
        """
        for name in ("prompt", "input_ids"):
            self._check_ids(name, call.fields.get(name))
        reply = await self._ask(call, adapter, affinity)
        try:
            headers = {name: reply.headers[name] for name in _RETURNED if name in reply.headers}
            yield StreamingResponse(reply.content.iter_any(), reply.status, headers)
        finally:
            reply.close()

    def _check_ids(self, name: str, value: Any) -> None:
        for item in value if isinstance(value, list) else ():
            if isinstance(item, int) and not 0 <= item < self._vocab_size:
                message = f"token id {item} is outside the vocabulary of {self._vocab_size}: send ids of this model"
                raise ApiError(400, message, param=name)
            self._check_ids(name, item)

    async def _ask(self, call: Call, adapter: str | None, affinity: str) -> aiohttp.ClientResponse:
        # SGLang takes a model without a colon for the base, whatever its name, so an adapter needs the base in front.
        body = call.body(f"{self.name}:{adapter}" if adapter else self.name)
        headers = {name: call.headers[name] for name in _FORWARDED if name in call.headers}
        headers |= {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        broke = ""
        for server in self._servers.order(affinity):
            try:
                return await self._servers.session.post(
                    server.url + call.path, data=body, headers=headers, timeout=_CALL
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self._servers.down(server, reason(error))
            except aiohttp.ClientError as error:  # nothing of an answer has reached the client: another one may try
                broke = f"{server.url} broke off before it answered ({reason(error)}): try again"
                logger.warning(broke)
        if broke:
            raise ApiError(502, broke)
        raise ApiError(503, self._servers.none_up(), headers={"Retry-After": "5"})
