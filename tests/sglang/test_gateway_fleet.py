"""The gateway before several real servers: a router in front of them, relays beside them, one that dies."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from real_server import CONFIG, RealServer, random_lora, router, running
from test_relay_sglang import listed, relay

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang import pool
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.server import SGLangServer
from trace_jax.gateway.adapters import Held
from trace_jax.gateway.sglang import ATTEMPTS, WAIT_SECONDS, SGLangBackend
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS
from trace_jax.session import server_urls

sys.path.append(str(Path(__file__).parents[1] / "gateway"))
from served import ByWord, make_app, make_gateway, serving  # noqa: E402

ASKED = {"temperature": 0.0, "max_tokens": 12}


@contextmanager
def gateway(
    urls: Sequence[str], renderer: TinyRenderer, directory: Path, relays: Sequence[str] = ()
) -> Iterator[tuple[str, SGLangEngine]]:
    held = {}
    for number, name in enumerate(("refunds", "orders")):
        save_peft(random_lora(20 + number, 4, TARGETS), CONFIG, directory / name, "base")
        held[name] = Held(directory / name, 4)
    settings = EngineSettings(capacity=256, wait_seconds=WAIT_SECONDS)
    engine = SGLangEngine(urls, CONFIG, (), settings, relays=relays, attempts=ATTEMPTS)

    async def make(stack):
        backend = SGLangBackend(engine, await engine.server_info(), CONFIG.vocab_size, renderer, 64.0)
        return make_app(await make_gateway(stack, backend, ByWord(tuple(held)), held, CONFIG, directory))

    with serving(make) as url:
        yield url, engine
    for url in urls:
        asyncio.run(cleared(SGLangServer(url, 60.0)))


async def cleared(server: SGLangServer) -> None:
    for name in await server.adapters():
        await server.unload_adapter(name)


def said(client: openai.OpenAI, words: str, **fields) -> tuple[str | None, str | None]:
    """What serves, and what it says."""
    messages = [{"role": "user", "content": words}]
    response = client.chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=messages,
        **ASKED,
        **fields,  # type: ignore[call-overload]
    )
    answer = response.parse()
    if not fields.get("stream"):
        return response.headers["X-Trace-Adapter"], answer.choices[0].message.content
    return response.headers["X-Trace-Adapter"], "".join(c.choices[0].delta.content or "" for c in answer)


def until(condition, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def test_servers_behind_a_router_one_of_which_dies(
    server: RealServer, mortal: RealServer, renderer: TinyRenderer, tmp_path: Path
) -> None:
    with running(router([server.url, mortal.url], tmp_path / "router.log")) as balancer:
        urls = asyncio.run(server_urls(balancer.url, None))
    assert sorted(urls) == sorted([server.url, mortal.url])
    talks = [f"about {'refunds' if i % 2 else 'orders'} {i}" for i in range(16)]
    with gateway(urls, renderer, tmp_path) as (url, engine):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            before = {words: said(client, words) for words in talks}
            assert {adapter for adapter, _ in before.values()} == {"refunds", "orders"}
            killer = threading.Timer(0.2, mortal.kill)
            killer.start()
            end = time.monotonic() + 3.0
            while time.monotonic() < end or mortal.url in engine.serving:
                for words in talks:  # whole answers: what broke off before it began was asked elsewhere
                    assert said(client, words) == before[words]
            killer.join()
            mortal.start()
            mortal.wait()
            until(lambda: len(engine.serving) == 2)
            assert listed(mortal).keys() == listed(server).keys()
            assert {words: said(client, words, stream=True) for words in talks} == before


def test_a_server_started_anew_unseen_never_answers_as_the_base(
    mortal: RealServer, renderer: TinyRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CHECK_SECONDS", 3600.0)  # nobody checks
    with gateway([mortal.url], renderer, tmp_path) as (url, _):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            before = said(client, "about refunds")
            assert before[1] != said(client, "about nothing")[1]
            mortal.kill()
            mortal.start()
            mortal.wait()
            assert not listed(mortal)
            assert said(client, "about refunds", stream=True) == before
            assert len(listed(mortal)) == 2


def test_adapters_and_merges_travel_through_relays(
    server: RealServer, mortal: RealServer, renderer: TinyRenderer, tmp_path: Path
) -> None:
    both, ours = [server, mortal], tmp_path / "gateway"
    ours.mkdir()
    with relay(tmp_path / "box0", server) as first, relay(tmp_path / "box1", mortal) as other:
        with gateway([first.url for first in both], renderer, ours, [first, other]) as (url, _):
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                adapter, merged = said(client, "refunds and orders")
                assert adapter == "1.000000*orders+1.000000*refunds"
            for number, box in enumerate(both):
                paths = listed(box).values()
                assert len(paths) == 3 and {Path(path).parent for path in paths} == {tmp_path / f"box{number}"}
    with gateway([server.url], renderer, tmp_path) as (url, _):  # on a shared disk
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            assert said(client, "refunds and orders")[1] == merged
