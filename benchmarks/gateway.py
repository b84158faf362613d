"""What the gateway adds to a request: the same calls to a server directly and through it, in turns.

    python -m benchmarks.gateway [--requests=300]                       # before a stand-in that answers at once
    python -m benchmarks.gateway --server=http://127.0.0.1:30000        # before a running SGLang server on this machine

Gateway and stand-in are processes of their own; one client asks one call after the other over connections that stay
open, so that nothing waits for anything but the work on its own call. The rows:

- ``later turn``: the conversation is known, as nearly all calls of an agent are.
- ``first request``: the gate of a random base of the quick start's size reads the prompt and decides.
- ``stream``: a later turn, streamed, to its last byte.

Prints one JSON object a row: milliseconds (p50, p99) directly and through the gateway, and the p50 and p99 of their
differences, call by call.
"""

import asyncio
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import uvicorn
from absl import app, flags
from flax import nnx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp
from tokenizers import Tokenizer

from trace_jax.chat.loading import load_renderer
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.contract.routing import Route, RouteTable
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.gateway.adapters import Adapters
from trace_jax.gateway.app import make_app
from trace_jax.gateway.connections import guarded, listen
from trace_jax.gateway.decisions import DecisionLog
from trace_jax.gateway.gateway import Gateway
from trace_jax.gateway.keys import Keys
from trace_jax.gateway.limits import Limits
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import Models
from trace_jax.gateway.pinning import Pins
from trace_jax.gateway.prompt_limit import characters_per_token
from trace_jax.gateway.routes import Conversations
from trace_jax.gateway.sglang import SGLangBackend
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import Gate, GateRouter

SERVER = flags.DEFINE_string("server", "", "a running SGLang server; empty: a stand-in that answers at once")
REQUESTS = flags.DEFINE_integer("requests", 300, "measured calls of each row, after a tenth as many to warm up")
TOKENS = flags.DEFINE_integer("max_tokens", 4, "tokens that a server samples a call")

CONFIG = DecoderConfig(
    vocab_size=600, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, intermediate_size=384,
    tie_embeddings=True,
)  # fmt: skip
NAMES = ("verify", "compute", "compare", "finish")
SAID = "please cancel the order of two lamps and refund the customer " * 8


def stand_in() -> ASGIApp:
    """Answers as a server does that has nothing to compute."""
    message = {"role": "assistant", "content": "The order was cancelled."}
    whole = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    events = [b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"The order "}}]}\n\n'] * 4

    async def answer(request: Request) -> Response:
        if (await request.json()).get("stream"):

            async def told():
                for event in (*events, b"data: [DONE]\n\n"):
                    yield event

            return StreamingResponse(told(), media_type="text/event-stream")
        return JSONResponse(whole)

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "base-model", "root": "x", "max_model_len": 8192}]})

    async def info(request: Request) -> Response:
        return JSONResponse({"max_lora_rank": 64})

    async def ready(request: Request) -> Response:
        return Response()

    async def probe(request: Request) -> Response:
        (tokens,) = (await request.json())["input_ids"]
        return JSONResponse([{"meta_info": {"input_token_logprobs": [[-4.0, token, None] for token in tokens]}}])

    return Starlette(
        routes=[
            HttpRoute("/v1/chat/completions", answer, methods=["POST"]),
            HttpRoute("/v1/models", models),
            HttpRoute("/server_info", info),
            HttpRoute("/ready", ready),
            HttpRoute("/generate", probe, methods=["POST"]),
        ]
    )


async def gateway(stack: AsyncExitStack, server: str, model: str) -> ASGIApp:
    """A gateway whose gate reads every prompt and always finds that the base suffices.

    Prompts are written for the server's ``model``, a directory; for the stand-in, which has none, by the tiny renderer.
    """
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json") if model else train_tokenizer([SAID], CONFIG.vocab_size)
    renderer = load_renderer(Path(model), None) if model else TinyRenderer(tokenizer)
    config = replace(CONFIG, vocab_size=tokenizer.get_vocab_size())
    zeros = np.zeros(CONFIG.hidden_size)
    weight, bias = np.zeros((CONFIG.hidden_size, len(NAMES))), np.full(len(NAMES), -9.0)
    gate = Gate("base", ("", *NAMES), "mean", zeros, zeros + 1.0, weight, bias)
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in NAMES)
    table = RouteTable(base="base", router="gate", routes=routes)
    router = GateRouter(table, gate, "base", PromptReader(Decoder(config, nnx.Rngs(0))), renderer)
    engine = SGLangEngine([server], config, (), EngineSettings())
    longest = characters_per_token(tokenizer)
    backend = SGLangBackend(engine, await engine.server_info(), config.vocab_size, renderer, longest)
    metrics = Metrics()
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    adapters = Adapters({}, backend, config, "base", directory / "merged", 1)
    log = DecisionLog(directory / "decisions.jsonl")
    stack.push_async_callback(log.close)
    return make_app(
        Gateway(
            Models("routed", [], []),
            Conversations(router, adapters, Pins(100_000, 3600.0), log, metrics),
            adapters,
            backend,
            Keys([]),
            Limits(1 << 20, 64, 600.0),
            metrics,
        )
    )


def serve(listener: socket.socket, server: str | None, model: str) -> None:
    """Run a gateway before ``server``, or the stand-in for one."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            made = stand_in() if server is None else await gateway(stack, server, model)
            await uvicorn.Server(uvicorn.Config(made, http=guarded(1024), lifespan="off", log_level="error")).serve(
                sockets=[listener]
            )

    asyncio.run(run())


def started(stack: AsyncExitStack, server: str | None, model: str = "") -> str:
    """The address of a new process; it ends with the stack."""
    listener = listen("127.0.0.1", 0)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(listener, server, model), daemon=True)
    process.start()
    stack.callback(process.kill)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def figures(direct: list[float], through: list[float]) -> dict[str, float]:
    """Milliseconds of both, and of what the second took longer."""
    rows = {"direct": np.array(direct), "gateway": np.array(through), "added": np.subtract(through, direct)}
    return {f"{n}_p{q}_ms": round(1e3 * float(np.percentile(row, q)), 3) for n, row in rows.items() for q in (50, 99)}


async def measure() -> None:
    async with AsyncExitStack() as stack:
        direct = SERVER.value or started(stack, None)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        card = await base_card(session, direct)
        model = card["id"]
        through = started(stack, direct, card["root"] if SERVER.value else "")
        await base_card(session, through)

        async def ask(url: str, model: str, conversation: str, stream: bool) -> float:
            body = {
                "model": model, "max_tokens": TOKENS.value, "temperature": 0, "stream": stream,
                "messages": [{"role": "user", "content": f"{conversation} {SAID}"}],
            }  # fmt: skip
            begun = time.perf_counter()
            headers = {"X-Trace-Conversation": conversation}
            async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            return time.perf_counter() - begun

        rows: dict[str, Callable[[str, str, int], Awaitable[float]]] = {
            "later turn": lambda url, name, i: ask(url, name, "one", False),
            "first request": lambda url, name, i: ask(url, name, f"talk {i}", False),
            "stream": lambda url, name, i: ask(url, name, "one", True),
        }
        warm = max(1, REQUESTS.value // 10)
        for row, call in rows.items():
            times: dict[str, list[float]] = {direct: [], through: []}
            for i in range(-warm, REQUESTS.value):
                for url, name in ((direct, model), (through, "routed")):
                    seconds = await call(url, name, i)
                    if i >= 0:
                        times[url].append(seconds)
            print(json.dumps({"row": row, **figures(times[direct], times[through])}), flush=True)


async def base_card(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """What the server tells of its model; waits until it answers."""
    for _ in range(600):
        try:
            async with session.get(f"{url}/v1/models") as answer:
                return (await answer.json())["data"][0]
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


if __name__ == "__main__":
    app.run(lambda _: asyncio.run(measure()))
