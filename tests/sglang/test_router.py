"""A sglang-router (0.3.2) names its servers; adapters it does not pass on, so that the engine asks the servers."""

import asyncio

import pytest
from real_server import CONFIG, STOP, random_lora, router

from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.server import Refused, SGLangServer
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS
from trace_jax.session import server_urls


@pytest.fixture(scope="module")
def balancer(server, mortal, tmp_path_factory):
    balancer = router([server.url, mortal.url], tmp_path_factory.mktemp("router") / "router.log")
    try:
        balancer.start()
        balancer.wait()
        yield balancer
    finally:
        balancer.kill()


def test_the_servers_behind_a_router_are_found(balancer, server, mortal, tmp_path) -> None:
    urls = asyncio.run(server_urls(balancer.url, None))
    assert sorted(urls) == sorted([server.url, mortal.url])
    assert asyncio.run(server_urls(f"{server.url}/,{mortal.url}", None)) == [server.url, mortal.url]
    engine = SGLangEngine(urls, CONFIG, STOP, EngineSettings(capacity=256))
    save_peft(random_lora(1, 4, TARGETS), CONFIG, tmp_path / "a", "base")
    asyncio.run(engine.load_adapter("a", tmp_path / "a"))

    async def both() -> list:
        first, other = (SGLangServer(url, 60.0) for url in urls)
        assert (await first.adapters()).keys() == (await other.adapters()).keys() != set()
        return [await engine.generate((7, 8, 9), Sampling(4, 0.0), "a", affinity=str(i)) for i in range(8)]

    assert len({completion.token_ids for completion in asyncio.run(both())}) == 1
    asyncio.run(engine.unload_adapter("a"))


def test_a_router_passes_no_adapters_on(balancer, tmp_path) -> None:
    """The day that it does, the engine may leave the servers to it."""
    save_peft(random_lora(1, 4, TARGETS), CONFIG, tmp_path / "a", "base")
    with pytest.raises(Refused, match="404"):
        asyncio.run(SGLangServer(balancer.url, 60.0).load_adapter("a", tmp_path / "a"))
