"""The routes of the gateway."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from trace_jax.engines.sglang.server import ServerFailed
from trace_jax.errors import EngineGone, UserError
from trace_jax.gateway.adapters import Adapters
from trace_jax.gateway.backend import Backend
from trace_jax.gateway.errors import ApiError, frames
from trace_jax.gateway.limits import Gone, Keys, Places, read_body, unless_gone
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import Models
from trace_jax.gateway.pinning import conversation_name
from trace_jax.gateway.request import CHAT, TEXT, read_call
from trace_jax.gateway.routes import Conversations, label

logger = logging.getLogger(__name__)

_HUNG_UP = 499  # nginx's status for a client that did not wait


@dataclass(frozen=True)
class Limits:
    """Bounds of what is asked at a time."""

    body_bytes: int
    requests: int  # served at a time
    seconds: float  # a request, its stream included


@dataclass(frozen=True)
class Gateway:
    """What the routes work with."""

    models: Models
    conversations: Conversations
    adapters: Adapters
    backend: Backend
    keys: Keys
    limits: Limits
    metrics: Metrics
    log_messages: bool = False  # write the body of every request to the log


def make_app(gateway: Gateway) -> Starlette:
    """The gateway as an ASGI application."""
    places = Places(gateway.limits.requests)
    gateway.metrics.watch("requests_in_flight", "Requests that are being served", lambda: places.taken)

    async def health(request: Request) -> Response:
        ready = gateway.backend.ready()
        return JSONResponse({"status": "ok" if ready else "no engine is up"}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(request: Request) -> Response:
        gateway.keys.check(request.headers)
        return JSONResponse(gateway.models.cards())

    async def model(request: Request) -> Response:
        gateway.keys.check(request.headers)
        return JSONResponse(gateway.models.card(request.path_params["name"]))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def no_route(request: Request, error: Exception) -> Response:
        return ApiError(404, f"no route {request.method} {request.url.path}: there is {CHAT}, for one").response()

    async def wrong_method(request: Request, error: Exception) -> Response:
        return ApiError(405, f"{request.url.path} does not take {request.method}").response()

    return Starlette(
        routes=[
            Route(CHAT, Completions(gateway, places), methods=["POST"]),
            Route(TEXT, Completions(gateway, places), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={ApiError: refused, 404: no_route, 405: wrong_method},
    )


@dataclass
class _Outcome:
    """What has gone out of an answer, and what it is about, for the log."""

    send: Send
    status: int = 0  # 0: nothing has gone out
    adapter: str = "-"
    started: float = field(default_factory=time.perf_counter)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)


class Completions:
    """The two routes that the engines answer. An ASGI application, so that all that a request holds ends with it."""

    def __init__(self, gateway: Gateway, places: Places) -> None:
        self._gateway, self._places = gateway, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome, request = _Outcome(send), Request(scope, receive)
        try:
            client = self._gateway.keys.check(request.headers)
            with self._places.take():
                body = await read_body(request, self._gateway.limits.body_bytes)
                async with asyncio.timeout(self._gateway.limits.seconds):
                    await unless_gone(receive, self._answer(request, body, client, outcome))
        except Gone:
            outcome.status = _HUNG_UP
        except ApiError as error:
            await error.response()(scope, receive, outcome)
        except Exception as error:
            await self._broken(scope, receive, outcome, error)
        finally:
            self._count(scope, outcome)

    async def _answer(self, request: Request, body: bytes, client: str, outcome: _Outcome) -> None:
        gateway = self._gateway
        call = read_call(request.url.path, body, request.headers)
        if gateway.log_messages:
            logger.info("%s", call.text)
        name = conversation_name(call)
        key = f"{client}/{name}" if client else name  # clients may give their conversations the same names
        parts, router = gateway.models.resolve(call.model), "fixed"
        if parts is None:
            decision = await gateway.conversations.decision(call, key)
            parts, router = decision.adapters, decision.router
        outcome.adapter = label(parts)
        async with (
            gateway.adapters.use(parts) as adapter,
            gateway.backend.answer(call, adapter, key) as response,
        ):
            response.headers["X-Trace-Adapter"] = outcome.adapter
            response.headers["X-Trace-Conversation"] = name
            response.headers["X-Trace-Router"] = router
            gateway.metrics.served.labels("merged" if len(parts) > 1 else outcome.adapter).inc()
            await response(request.scope, request.receive, outcome)

    async def _broken(self, scope: Scope, receive: Receive, outcome: _Outcome, error: Exception) -> None:
        """Say so, or where an answer has begun leave it unfinished, so that the client sees that it is not whole."""
        told = self._told(error)
        why = frames(error) if told.status == 500 else " ".join(str(error).split())
        logger.warning("%s is not answered to its end: %s %s", scope["path"], type(error).__name__, why)
        if outcome.status:
            self._gateway.metrics.broken.inc()
        else:
            await told.response()(scope, receive, outcome)

    def _told(self, error: Exception) -> ApiError:
        """What a client hears of an error: no address, path or message of another client."""
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
            case UserError():
                return ApiError(502, "the adapter of this conversation cannot be had: the gateway's log says why")
        return ApiError(500, "an error of the gateway, whose log says where: try again")

    def _count(self, scope: Scope, outcome: _Outcome) -> None:
        seconds = time.perf_counter() - outcome.started
        self._gateway.metrics.requests.labels(scope["path"], outcome.status).inc()
        self._gateway.metrics.seconds.labels(scope["path"]).observe(seconds)
        logger.info("%s %d %s %.3f s", scope["path"], outcome.status, outcome.adapter, seconds)
