"""A gateway in this process: real uvicorn, real sockets, on a port that the kernel chose."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from trace_jax.contract.routing import Route, RouteDecision, RouterKind, RouteTable
from trace_jax.gateway.adapters import Adapters, Held
from trace_jax.gateway.app import make_app
from trace_jax.gateway.backend import Backend
from trace_jax.gateway.connections import guarded, listen
from trace_jax.gateway.decisions import DecisionLog
from trace_jax.gateway.gateway import Gateway
from trace_jax.gateway.keys import Keys
from trace_jax.gateway.limits import Limits
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import Models
from trace_jax.gateway.pinning import Pins
from trace_jax.gateway.recorder import Recorder
from trace_jax.gateway.routes import Conversations
from trace_jax.models.config import DecoderConfig
from trace_jax.routing.router import RouteRequest, SingleDecision

Make = Callable[[AsyncExitStack], Awaitable[ASGIApp]]


@contextmanager
def serving(make: Make, **settings: object) -> Iterator[str]:
    """The address of the application that ``make`` makes, in the event loop that serves it."""
    listener = listen("127.0.0.1", 0)
    server: list[uvicorn.Server] = []
    failure: list[BaseException] = []
    begun = threading.Event()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            app = await make(stack)
            common = {"http": guarded(1024), "lifespan": "off", "log_config": None, "access_log": False}
            config = uvicorn.Config(app, **{**common, **settings})  # type: ignore[arg-type]
            server.append(uvicorn.Server(config))
            begun.set()
            await server[0].serve(sockets=[listener])

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun.wait()
    try:
        if failure:
            raise failure[0]
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        if server:
            server[0].should_exit = True
        thread.join(30)
        listener.close()
    if failure:
        raise failure[0]


class ByWord(SingleDecision):
    """Sends a conversation to the adapters whose names its messages hold: decisions that a test can foresee."""

    kind: RouterKind = "classifier"

    def __init__(self, names: Sequence[str]) -> None:
        routes = tuple(Route(adapter=name, capability=name, description=name) for name in names)
        self.table = RouteTable(base="b", router="classifier", routes=routes)
        self.batches: list[list[RouteRequest]] = []
        self.before: Callable[[], None] = lambda: None

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        self.before()
        self.batches.append(list(requests))
        return [self._decide(request) for request in requests]

    def _decide(self, request: RouteRequest) -> RouteDecision:
        said = " ".join(m.content or "" for m in request.messages).split()
        chosen = {route.adapter: 1.0 for route in self.table.routes if route.adapter in said}
        return RouteDecision(conversation=request.conversation, router=self.kind, weights={}, adapters=chosen)


async def make_gateway(
    stack: AsyncExitStack,
    backend: Backend,
    router: ByWord,
    held: dict[str, Held],
    config: DecoderConfig,
    directory: Path,
    *,
    keys: Sequence[str] = (),
    limits: Limits = Limits(1 << 20, 64, 60.0),  # noqa: B008 (frozen)
    max_merged: int = 2,
    pins: Pins | None = None,
    log_messages: bool = False,
    cors_origins: Sequence[str] = (),
    record_bytes: int = 0,
) -> Gateway:
    metrics = Metrics()
    adapters = Adapters(held, backend, config, "base-revision", directory / "merged", max_merged)
    await adapters.load()
    log = DecisionLog(directory / "decisions.jsonl")
    stack.push_async_callback(log.close)
    conversations = Conversations(router, adapters, pins or Pins(100, 3600.0), log, metrics)
    models = Models(backend.name, ["gpt-4o"], adapters.names)
    recorder = None
    if record_bytes:
        path = directory / "conversations.jsonl"
        recorder = Recorder(path, "base-revision", conversation_bytes=record_bytes, conversations=100, metrics=metrics)
        stack.push_async_callback(recorder.close)
    parts = models, conversations, adapters, backend, Keys(keys), limits, metrics, log_messages, cors_origins
    return Gateway(*parts, recorder)


__all__ = ["ByWord", "make_app", "make_gateway", "serving"]
