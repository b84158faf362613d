"""The routes of the gateway."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trace_jax.gateway.completions import Completions
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.gateway import Gateway
from trace_jax.gateway.request import CHAT, TEXT

_EXPOSED = ("X-Trace-Adapter", "X-Trace-Conversation", "X-Trace-Router", "X-Trace-Prompt")  # headers that browsers see


def make_app(gateway: Gateway) -> Starlette:
    """The gateway as an ASGI application."""
    completions = Completions(gateway)

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

    async def api_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def no_route(request: Request, error: Exception) -> Response:
        return ApiError(404, f"no route {request.method} {request.url.path}: {CHAT} is one").response()

    async def wrong_method(request: Request, error: Exception) -> Response:
        return ApiError(405, f"{request.url.path} does not take {request.method}").response()

    cors = Middleware(
        CORSMiddleware,
        allow_origins=gateway.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )
    return Starlette(
        routes=[
            Route(CHAT, completions, methods=["POST"]),
            Route(TEXT, completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        middleware=[cors] if gateway.cors_origins else [],
        exception_handlers={ApiError: api_error, 404: no_route, 405: wrong_method},
    )
