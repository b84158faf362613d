"""From the URLs of the settings to the servers and relays that are asked."""

import asyncio
from urllib.parse import urlsplit

from trace_jax.engines.sglang.server import ServerFailed, SGLangServer
from trace_jax.errors import UserError


async def server_urls(given: str, api_key: str | None) -> list[str]:
    """The servers of a comma-separated list; in place of a sglang-router, those behind it.

    Routers (0.3.2) do not hand adapters on to their servers, so that these have to be asked themselves.
    """

    async def behind(url: str) -> list[str]:
        server = SGLangServer(url, 10.0, api_key)
        try:
            found = await server.workers()
        except ServerFailed:  # it is away
            return [url]
        finally:
            await server.close()
        if not found:
            raise UserError(f"{url} is a router without workers: start it with --worker-urls")
        return found

    found = await asyncio.gather(*(behind(url) for url in given.split(",")))
    return list(dict.fromkeys(url for urls in found for url in urls))


def relay_url(server: str, offset: int) -> str:
    """The relay beside a server. Raises UserError for a server whose URL names no port."""
    where = urlsplit(server)
    if where.port is None:
        raise UserError(f"{server} names no port, from which engine.relay_port_offset counts: write HOST:PORT")
    return f"{where.scheme}://{where.netloc.rpartition(':')[0]}:{where.port + offset}"
