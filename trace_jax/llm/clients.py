"""HTTP clients of each event loop: a model may be used in one ``asyncio.run`` after another."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trace_jax.errors import UserError
from trace_jax.llm.settings import LanguageModelSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NO_KEY = "none"  # what servers without keys are sent: the client wants one


@dataclass(frozen=True)
class Client:
    """A client and the bound on its requests in flight."""

    http: "AsyncOpenAI"
    slots: asyncio.Semaphore


class Clients:
    """One client for each running event loop, closed when ``asyncio.run`` ends the loop."""

    def __init__(self, settings: LanguageModelSettings, key: str) -> None:
        self._settings, self._key = settings, key
        self._open: dict[asyncio.AbstractEventLoop, tuple[AsyncGenerator[Client], Client]] = {}

    async def get(self) -> Client:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            self._open = {other: opened for other, opened in self._open.items() if not other.is_closed()}
            generator = _client(self._settings, self._key)
            self._open[loop] = generator, await anext(generator)
        return self._open[loop][1]

    async def close(self) -> None:
        """Close the client of the running loop now."""
        if opened := self._open.pop(asyncio.get_running_loop(), None):
            await opened[0].aclose()


def api_key(variable: str) -> str:
    """The key in the environment variable ``variable``; empty if it is not set. Raises UserError for one that is none.

    The key itself is in no message.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"${variable} holds no API key: it has spaces or other characters that no key has: set it anew")
    return key


async def _client(settings: LanguageModelSettings, key: str) -> AsyncGenerator[Client]:
    """Only the event loop finishes this generator, when it ends; that closes the client."""
    from openai import AsyncOpenAI, Timeout  # takes a second

    timeout = Timeout(settings.read_seconds, connect=settings.connect_seconds)  # the whole request has its own
    http = AsyncOpenAI(base_url=settings.url, api_key=key or _NO_KEY, timeout=timeout, max_retries=0)
    async with http:
        yield Client(http, asyncio.Semaphore(settings.concurrency))
