"""Merges on stand-ins for servers: when they are loaded, when they go, and what is left by clients that hang up."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from staging import CHAT, asked, until
from upstream import Upstream

from trace_jax.engines.sglang.server import ServerFailed
from trace_jax.errors import EngineGone
from trace_jax.gateway import adapters
from trace_jax.models.formats.peft import save_peft
from trace_jax.routing.classifier import ClassifierRouter


class Door:
    """Requests to one route of the servers, which wait at it while it is shut."""

    def __init__(self) -> None:
        self.open, self.names = threading.Event(), []
        self.open.set()

    def before(self, answer):
        async def wait(upstream, request):
            self.names.append((await request.json())["lora_name"])
            while not self.open.is_set():
                await asyncio.sleep(0.01)
            return await answer(upstream, request)

        return wait


@pytest.fixture
def loads(monkeypatch):
    door = Door()
    monkeypatch.setattr(Upstream, "_load", door.before(Upstream._load))
    return door


@pytest.fixture
def unloads(monkeypatch):
    door = Door()
    monkeypatch.setattr(Upstream, "_unload", door.before(Upstream._unload))
    return door


@contextmanager
def client(stage, body):
    """One that has asked, and hangs up at the end of the context."""
    place, data = urlsplit(stage.url), json.dumps(body).encode()
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        yield
    until(lambda: stage.metric('requests_total{route="/v1/chat/completions",status="499"}'))


def merge_of(stage, said: str) -> str:
    """The name of the merge that serves ``said``."""
    status, headers, _ = stage.post(asked(said))
    assert status == 200 and "+" in headers["X-Trace-Adapter"]
    return json.loads(stage.upstreams[0].calls[-1][2])["model"].partition(":")[2]


def held_by(stage) -> set[str]:
    return {name for name in stage.upstreams[0].adapters if name.startswith("merged@")}


def test_a_client_that_hangs_up_while_room_is_made_leaves_no_merge_behind(stage, loads):
    with stage(max_merged=2) as stage, ThreadPoolExecutor(1) as threads:
        first, second = merge_of(stage, "refunds and orders"), merge_of(stage, "refunds and sums")
        loads.open.clear()
        third = threads.submit(stage.post, asked("orders and sums"))  # the first goes; the engine is busy loading
        until(lambda: len(set(loads.names)) == 6)
        with client(stage, asked("refunds and orders")):  # the second is to go, once the engine has time
            until(lambda: stage.metric("requests_in_flight") == 2)
            time.sleep(0.3)
        loads.open.set()
        assert third.result()[0] == 200
        assert merge_of(stage, "refunds and sums") == second and merge_of(stage, "refunds and orders") == first
        assert held_by(stage) == {first, second}


def test_merges_are_served_while_another_one_goes(stage, unloads):
    with stage(max_merged=2) as stage, ThreadPoolExecutor(1) as threads:
        first, second = merge_of(stage, "refunds and orders"), merge_of(stage, "refunds and sums")
        unloads.open.clear()
        third = threads.submit(stage.post, asked("orders and sums"))
        until(lambda: unloads.names == [first])
        assert merge_of(stage, "refunds and sums") == second
        unloads.open.set()
        assert third.result()[0] == 200 and len(held_by(stage)) == 2 and first not in held_by(stage)


def test_a_failed_load_whose_client_has_left_is_tried_again(stage, loads):
    with stage(max_merged=1) as stage:
        first = merge_of(stage, "refunds and orders")
        merge_of(stage, "refunds and sums")
        stage.upstreams[0].refused_adapters.add(first)
        loads.open.clear()
        before = len(loads.names)
        with client(stage, asked("refunds and orders")):  # decided before
            until(lambda: len(loads.names) > before)
        loads.open.set()
        until(lambda: not stage.gateway.adapters.merged)
        stage.upstreams[0].refused_adapters.clear()
        assert merge_of(stage, "refunds and orders") == first


def test_a_failed_load_is_tried_again(stage):
    with stage(max_merged=1) as stage:
        first = merge_of(stage, "refunds and orders")
        merge_of(stage, "refunds and sums")
        stage.upstreams[0].refused_adapters.add(first)
        assert stage.post(asked("refunds and orders"))[0] == 502
        stage.upstreams[0].refused_adapters.clear()
        assert merge_of(stage, "refunds and orders") == first


def test_a_client_that_hangs_up_stops_no_load_that_another_one_waits_for(stage, loads):
    with stage(max_merged=1) as stage, ThreadPoolExecutor(1) as threads:
        first = merge_of(stage, "refunds and orders")
        merge_of(stage, "refunds and sums")
        loads.open.clear()
        before = len(loads.names)
        with client(stage, asked("refunds and orders")):
            until(lambda: len(loads.names) > before)
            other = threads.submit(merge_of, stage, "refunds and orders")
            until(lambda: stage.metric("requests_in_flight") == 2)
            time.sleep(0.2)
        loads.open.set()
        assert other.result() == first and loads.names[before:] == [first]


def test_a_merge_that_is_made_for_nobody_goes_when_it_is_loaded(stage, monkeypatch):
    begun, written = threading.Event(), threading.Event()

    def save_slowly(*asked):
        begun.set()
        written.wait(30)
        save_peft(*asked)

    with stage(max_merged=1) as stage, ThreadPoolExecutor(1) as threads:
        merge_of(stage, "refunds and orders")
        second = merge_of(stage, "refunds and sums")
        monkeypatch.setattr(adapters, "save_peft", save_slowly)
        with client(stage, asked("refunds and orders")):
            assert begun.wait(30)
        other = threads.submit(merge_of, stage, "refunds and sums")
        until(lambda: stage.metric("requests_in_flight") == 1)
        time.sleep(0.3)
        written.set()
        assert other.result() == second and held_by(stage) == {second}


def test_merges_in_use_stay_and_who_needs_room_waits_for_it(stage):
    with stage(max_merged=1) as stage, ThreadPoolExecutor(2) as threads:
        (server,) = stage.upstreams
        first, second = merge_of(stage, "refunds and orders"), merge_of(stage, "refunds and sums")
        server.delay, calls = 1.0, len(server.calls)
        using = threads.submit(merge_of, stage, "refunds and sums")
        until(lambda: len(server.calls) > calls)
        waiting = threads.submit(stage.post, asked("refunds and orders"))
        until(lambda: stage.metric("requests_in_flight") == 2)
        time.sleep(0.2)
        assert held_by(stage) == {second}
        assert using.result() == second and waiting.result(10)[0] == 200
        assert held_by(stage) == {first}


def test_the_least_recently_used_merge_goes(stage):
    with stage(max_merged=2) as stage:
        first = merge_of(stage, "refunds and orders")
        merge_of(stage, "refunds and sums")
        assert merge_of(stage, "refunds and orders") == first
        third = merge_of(stage, "orders and sums")
        assert held_by(stage) == {first, third}


def test_other_weights_are_another_merge(stage, monkeypatch):
    with stage() as stage:
        decide = stage.router._decide

        def weighed(request):
            decision = decide(request)
            least = 0.3 if "few" in (request.messages[0].content or "") else 0.7
            return decision.model_copy(update={"adapters": {"refunds": least, "orders": 1.0 - least}})

        monkeypatch.setattr(stage.router, "_decide", weighed)
        few, many = merge_of(stage, "refunds few orders"), merge_of(stage, "refunds many orders")
        assert few != many and held_by(stage) == {few, many}


def test_an_outage_is_told_and_decides_nothing(stage):
    with stage() as stage:
        (server,) = stage.upstreams
        server.stop()
        until(lambda: not stage.engine.serving)
        status, headers, answer = stage.post(asked("refunds and orders"))
        assert status == 503 and headers["Retry-After"] == "5" and b"127.0.0.1" not in answer
        server.start()
        until(lambda: stage.engine.serving)
        assert merge_of(stage, "refunds and orders") in held_by(stage)
        assert stage.metric("fallbacks_total") == 0


@pytest.mark.parametrize(("outage", "status"), [(EngineGone, 503), (ServerFailed, 502)])
def test_an_outage_of_the_servers_that_the_router_asks_decides_nothing(stage, renderer, outage, status):
    class Reader:
        away = True

        def check_length(self, prompt):
            pass

        def next_logprobs(self, prompts, token_ids):
            if self.away:
                raise outage("http://10.0.0.1:1 is away")
            return np.tile(np.arange(len(token_ids), dtype=np.float32), (len(prompts), 1))

    with stage() as stage:
        reader = Reader()
        router = ClassifierRouter(stage.router.table, reader, renderer)
        stage.router.decide_batch = router.decide_batch
        found, _, answer = stage.post(asked("hello"))
        assert found == status and b"10.0.0.1" not in answer
        reader.away = False
        assert stage.post(asked("hello"))[1]["X-Trace-Adapter"] == "sums"


def test_a_merge_that_cannot_be_written_goes_to_the_base_at_first(stage):
    with stage() as stage:
        (stage.directory / "merged").write_text("a file where a directory should be")
        assert stage.post(asked("refunds and orders"))[1]["X-Trace-Adapter"] == "base"
        assert stage.metric('fallbacks_total{cause="load"}') == 1
