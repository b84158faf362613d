"""HTTP connections of each event loop: an engine may be used in one ``asyncio.run`` after another."""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

_KEEP_ALIVE = 3.0  # seconds; servers close idle connections after 5, and requests must not use a closing one


class Sessions:
    """One session for each running event loop, closed when ``asyncio.run`` ends the loop."""

    def __init__(self) -> None:
        self._open: dict[
            asyncio.AbstractEventLoop, tuple[AsyncGenerator[aiohttp.ClientSession], aiohttp.ClientSession]
        ] = {}

    async def get(self) -> aiohttp.ClientSession:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            self._open = {other: opened for other, opened in self._open.items() if not other.is_closed()}
            generator = _session()
            self._open[loop] = generator, await anext(generator)
        return self._open[loop][1]

    async def close(self) -> None:
        """Close the session of the running loop now."""
        if opened := self._open.pop(asyncio.get_running_loop(), None):
            await opened[0].aclose()


async def _session() -> AsyncGenerator[aiohttp.ClientSession]:
    """Only the event loop finishes this generator, when it ends; that closes the session."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)  # the pool's slots bound the number
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
