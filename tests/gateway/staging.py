"""A gateway in front of stand-ins for servers, and what its tests ask of it."""

import json
import time
import urllib.request
from contextlib import contextmanager
from http.client import HTTPMessage

import pytest
from served import ByWord, make_app, make_gateway, serving
from upstream import Upstream

from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang import pool
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.gateway.sglang import ATTEMPTS, SGLangBackend

CHAT = "/v1/chat/completions"
WAIT_SECONDS = 1.0  # without a server: half of the gateway's own


def engine_of(upstreams, config, api_key=None, **changes) -> SGLangEngine:
    urls = [upstream.url for upstream in upstreams]
    settings = EngineSettings(wait_seconds=WAIT_SECONDS, **changes)
    return SGLangEngine(urls, config, (), settings, api_key=api_key, attempts=ATTEMPTS)


class Stage:
    """A gateway in front of stand-ins for servers."""

    def __init__(
        self, held, config, renderer, directory, upstreams=1, max_rank: int | None = 16, servers=(), **settings
    ) -> None:
        self.renderer = renderer
        self.servers = dict(servers)  # settings of the engine
        self.upstreams = [Upstream(max_rank) for _ in range(upstreams)]
        self.router, self.directory = ByWord(tuple(held)), directory
        self._parts = held, config, settings

    async def make(self, stack):
        held, config, settings = self._parts
        self.engine = engine_of(self.upstreams, config, **self.servers)
        backend = SGLangBackend(self.engine, await self.engine.server_info(), config.vocab_size, self.renderer, 64.0)
        self.gateway = await make_gateway(stack, backend, self.router, held, config, self.directory, **settings)
        return make_app(self.gateway)

    def post(self, body, path: str = CHAT, **headers: str) -> tuple[int, HTTPMessage, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        shown = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, shown), timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metric(self, name: str) -> float:
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"trace_gateway_{name}"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pool, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_FIRST_RETRY", 0.05)
    monkeypatch.setattr(pool, "_TICK", 0.02)


@pytest.fixture
def stage(held, config, renderer, tmp_path):
    """``with stage(…) as stage: stage.post(…)``."""

    @contextmanager
    def open_stage(**settings):
        stage = Stage(held, config, renderer, tmp_path, **settings)
        try:
            with serving(stage.make) as stage.url:
                yield stage
        finally:
            for upstream in stage.upstreams:
                upstream.stop()

    return open_stage


def asked(said: str, **fields):
    return {"model": "tiny", "messages": [{"role": "user", "content": said}], **fields}


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
