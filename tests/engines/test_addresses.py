"""From the URLs of the settings to the servers that are asked."""

import asyncio

import pytest
from aiohttp import web

from trace_jax.engines.sglang.addresses import relay_url, server_urls
from trace_jax.errors import UserError


def found(workers: list[dict[str, str]] | None, key: str | None = None) -> list[str]:
    """What ``server_urls`` makes of a router with ``workers``, or of a server that has no such route."""

    async def run() -> list[str]:
        async def answer(request: web.Request) -> web.Response:
            assert request.headers.get("Authorization") == (f"Bearer {key}" if key else None)
            return web.json_response({"workers": workers})

        app = web.Application()
        if workers is not None:
            app.router.add_get("/workers", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return [address.replace(url, "itself") for address in await server_urls(f"{url}/,{url}", key)]
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_a_router_stands_for_its_workers_and_a_server_for_itself() -> None:
    workers = [{"url": "http://a:1/"}, {"url": "http://b:1"}]
    assert found(workers) == found(workers, "key") == ["http://a:1", "http://b:1"]
    assert found(None) == ["itself"]
    assert asyncio.run(server_urls("http://127.0.0.1:9", None)) == ["http://127.0.0.1:9"]  # away


def test_a_router_without_workers_is_named() -> None:
    with pytest.raises(UserError, match="http://127.* is a router without workers: start it with --worker-urls"):
        found([])


def test_a_relay_s_port_is_counted_from_the_server_s() -> None:
    assert relay_url("http://h:30001", 1000) == "http://h:31001"
    with pytest.raises(UserError, match="https://h names no port"):
        relay_url("https://h", 1000)
