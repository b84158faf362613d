"""A gateway and a stand-in for a server, in separate processes, for the benchmarks."""

import asyncio
import multiprocessing
import socket
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import uvicorn
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

CONFIG = DecoderConfig(
    vocab_size=600, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, intermediate_size=384,
    tie_embeddings=True,
)  # fmt: skip
NAMES = ("verify", "compute", "compare", "finish")
SAID = "please cancel the order of two lamps and refund the customer " * 8


@dataclass(frozen=True)
class Started:
    """A server in a process of its own."""

    url: str
    process: int  # its id


def stand_in(pause: float) -> ASGIApp:
    """A server that computes nothing. With a ``pause`` between events, a stream has a hundred events."""
    message = {"role": "assistant", "content": "The order was cancelled."}
    whole = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    event = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"The order "}}]}\n\n'
    number = 100 if pause else 4

    async def answer(request: Request) -> Response:
        if (await request.json()).get("stream"):

            async def events():
                for _ in range(number):
                    yield event
                    await asyncio.sleep(pause)
                yield b"data: [DONE]\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")
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
    """A gateway whose gate reads every prompt and always chooses the base.

    Prompts are written for the server's ``model``, a directory. The stand-in has no model, so the tiny renderer writes
    its prompts.
    """
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json") if model else train_tokenizer([SAID], CONFIG.vocab_size)
    renderer = load_renderer(Path(model), None) if model else TinyRenderer(tokenizer)
    config = replace(CONFIG, vocab_size=tokenizer.get_vocab_size())
    zeros = np.zeros(CONFIG.hidden_size)
    weight, bias = np.zeros((CONFIG.hidden_size, len(NAMES))), np.full(len(NAMES), -9.0)
    gate = Gate("base", ("", *NAMES), "mean", zeros, zeros + 1.0, weight, bias)
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in NAMES)
    table = RouteTable(base="base", router="gate", routes=routes, gate="gate.safetensors", gate_sha256="0" * 64)
    router = GateRouter(table, gate, "base", PromptReader(Decoder(config, nnx.Rngs(0))), renderer)
    engine = SGLangEngine([server], config, (), EngineSettings(slots=512))
    longest, metrics = characters_per_token(tokenizer), Metrics()
    backend = SGLangBackend(engine, await engine.server_info(), config.vocab_size, renderer, longest)
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
            Limits(16 << 20, 512, 600.0),
            metrics,
        )
    )


def serve(listener: socket.socket, server: str | None, model: str, pause: float) -> None:
    """Run a gateway in front of ``server``; without a server run the stand-in."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            made = stand_in(pause) if server is None else await gateway(stack, server, model)
            settings = uvicorn.Config(made, http=guarded(1024), lifespan="off", log_level="error")
            await uvicorn.Server(settings).serve(sockets=[listener])

    asyncio.run(run())


def started(stack: AsyncExitStack, server: str | None, model: str = "", pause: float = 0.0) -> Started:
    """A server in a new process, which ends with the stack."""
    listener = listen("127.0.0.1", 0)
    arguments = (listener, server, model, pause)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
    process.start()
    stack.callback(process.kill)
    assert process.pid is not None
    return Started(f"http://127.0.0.1:{listener.getsockname()[1]}", process.pid)


async def base_card(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """The server's description of its model. Waits until the server answers."""
    for _ in range(600):
        try:
            async with session.get(f"{url}/v1/models") as answer:
                return (await answer.json())["data"][0]
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")
