"""The two routes that the engines answer."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import aiohttp
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from trace_jax.engines.sglang.server import ServerFailed
from trace_jax.errors import EngineGone, TraceError
from trace_jax.gateway.body import Bodies, trim_memory
from trace_jax.gateway.errors import ApiError, frames
from trace_jax.gateway.gateway import Gateway
from trace_jax.gateway.limits import ClientDisconnected, ConcurrencyLimit, cancel_on_disconnect
from trace_jax.gateway.off_loop import LARGE, sized
from trace_jax.gateway.pinning import conversation_name
from trace_jax.gateway.request import CompletionRequest, read_request
from trace_jax.gateway.routes import label

logger = logging.getLogger(__name__)

_CLIENT_CLOSED = 499  # nginx's status for a client that has closed the connection


@dataclass
class _Outcome:
    """What has been sent of a response, and what serves it, for the log."""

    send: Send
    status: int = 0  # 0: nothing has been sent
    adapter: str = "-"
    body_bytes: int = 0  # of the request
    started: float = field(default_factory=time.perf_counter)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)


class Completions:
    """An ASGI application, so that all that a request holds ends with it.

    A request counts as in flight only when its body has arrived, so an unfinished request does not block others.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, limits = gateway, gateway.limits
        self._bodies, self._concurrency = Bodies(limits.body_bytes), ConcurrencyLimit(limits.requests)
        gateway.metrics.watch(
            "requests_in_flight", "Requests that are being served", lambda: self._concurrency.in_flight
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome, request = _Outcome(send), Request(scope, receive)
        try:
            await self._serve(request, outcome)
        except ClientDisconnected:
            outcome.status = _CLIENT_CLOSED
        except ApiError as error:
            await error.response()(scope, receive, outcome)
        except Exception as error:
            await self._failed(scope, receive, outcome, error)
        finally:
            self._count(scope, outcome)
        if outcome.body_bytes > LARGE:
            await sized(outcome.body_bytes, trim_memory)

    async def _serve(self, request: Request, outcome: _Outcome) -> None:
        client = self._gateway.keys.check(request.headers)
        async with self._bodies.read(request) as body:
            outcome.body_bytes = len(body)
            with self._concurrency.slot():
                async with asyncio.timeout(self._gateway.limits.seconds):
                    await cancel_on_disconnect(request.receive, self._answer(request, body, client, outcome))

    async def _answer(self, request: Request, body: bytes, client: str, outcome: _Outcome) -> None:
        gateway, size = self._gateway, len(body)
        completion = await sized(size, lambda: read_request(request.url.path, body, request.headers))
        if gateway.log_messages:
            logger.info("%s", completion.text)
        parts, router = gateway.models.resolve(completion.model), "fixed"
        answer = await gateway.backend.prepare(completion)
        name = await sized(size, lambda: conversation_name(completion))
        key = f"{client}/{name}" if client else name  # clients may give their conversations the same names
        if parts is None:
            decision = await gateway.conversations.decision(completion, key)
            parts, router = decision.adapters, decision.router
        outcome.adapter = label(parts)
        async with gateway.adapters.use(parts) as adapter, answer(adapter, key) as response:
            response.headers["X-Trace-Adapter"] = outcome.adapter
            response.headers["X-Trace-Conversation"] = name
            response.headers["X-Trace-Router"] = router
            gateway.metrics.served.labels("merged" if len(parts) > 1 else outcome.adapter).inc()
            if writer := response.headers.get("X-Trace-Prompt"):
                gateway.metrics.prompts.labels(writer).inc()
            with self._recorded(completion, key, parts, outcome) as send:
                await response(request.scope, request.receive, send)

    def _recorded(
        self, completion: CompletionRequest, key: str, parts: Mapping[str, float], outcome: _Outcome
    ) -> AbstractContextManager[Send]:
        recorder = self._gateway.recorder
        if recorder is None:
            return nullcontext(outcome)
        adapter = outcome.adapter if parts else None
        return recorder.recorded(completion, outcome, conversation=key, adapter=adapter, started=outcome.started)

    async def _failed(self, scope: Scope, receive: Receive, outcome: _Outcome, error: Exception) -> None:
        """Send an error, or if a response has begun leave it unfinished, so that the client sees that it is cut."""
        api_error = self._api_error(error)
        why = frames(error) if api_error.status == 500 else " ".join(str(error).split())
        logger.warning("%s is not answered to its end: %s %s", scope["path"], type(error).__name__, why)
        if outcome.status:
            self._gateway.metrics.broken.inc()
        else:
            await api_error.response()(scope, receive, outcome)

    def _api_error(self, error: Exception) -> ApiError:
        """What a client gets for an error: no address, path or message of another client."""
        match error:
            case RecursionError():
                return ApiError(400, "the body is nested too deeply: send it flatter")
            case EngineGone():
                return ApiError(503, "no server is up: try again later", headers={"Retry-After": "5"})
            case TimeoutError():
                return ApiError(
                    504, f"no answer within {self._gateway.limits.seconds:.0f} s: ask for less, or try again"
                )
            case ServerFailed() | aiohttp.ClientError():
                return ApiError(502, "servers broke off before they answered: try again")
            case TraceError():
                return ApiError(502, "the adapter of this conversation cannot be had: the gateway's log says why")
        return ApiError(500, "an error of the gateway, whose log says where: try again")

    def _count(self, scope: Scope, outcome: _Outcome) -> None:
        seconds = time.perf_counter() - outcome.started
        self._gateway.metrics.requests.labels(scope["path"], outcome.status).inc()
        self._gateway.metrics.seconds.labels(scope["path"]).observe(seconds)
        logger.info("%s %d %s %.3f s", scope["path"], outcome.status, outcome.adapter, seconds)
