"""SGLang servers that hold the same base and the same adapters."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from trace_jax.rollout.engine import EngineError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
_CONTROL = aiohttp.ClientTimeout(total=120.0, sock_connect=CONNECT_SECONDS)  # loading an adapter may take a while
_PROBE = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
_WATCH_SECONDS = 2.0  # far below what a server needs to start again, so that none comes back unseen


@dataclass(eq=False)
class Server:
    """One server. ``up`` once it answers and holds all adapters."""

    url: str  # http://HOST:PORT
    up: bool = False
    why: str = "not asked yet"  # it is down


class Servers:
    """Watches the servers, keeps their adapters alike, and says which one serves a conversation.

    async with Servers(["http://10.0.0.5:30000"]) as servers: ...

    A server that was down and answers again may have been started anew: it serves when it holds all adapters again.
    Adapter files have to be at the same path on every server's machine.

    Args:
        api_key: shown to the servers, if they ask for one.
    """

    def __init__(self, urls: list[str], api_key: str | None = None) -> None:
        self.all = tuple(Server(url.rstrip("/")) for url in urls)
        self.name = ""
        self.max_rank: int | None = None
        self.max_tokens = 0  # of a prompt with its completion
        self._adapters: dict[str, Path] = {}
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def __aenter__(self) -> Self:
        # The gateway's own limit is the only one. Idle connections go before a server (uvicorn: after 5 s) drops them.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        self.session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, auto_decompress=False, skip_auto_headers=("User-Agent",)
        )
        try:
            await asyncio.gather(*map(self._check, self.all))
            await self._describe()
        except BaseException:
            await self.session.close()
            raise
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watcher.cancel()
        with suppress(asyncio.CancelledError):
            await self._watcher
        await self.session.close()

    def order(self, affinity: str) -> list[Server]:
        """The servers that are up, in the order in which they are to be asked: the same for the same ``affinity``.

        Rendezvous hashing: a server that goes takes only its own conversations elsewhere.
        """
        up = [server for server in self.all if server.up]
        return sorted(up, key=lambda server: hashlib.sha256(f"{server.url} {affinity}".encode()).digest())

    def down(self, server: Server, why: str) -> None:
        """It could not be reached: nobody is sent there until it holds all adapters again."""
        if server.up:
            logger.error("%s is down: %s", server.url, why)
        server.up, server.why = False, why

    async def load(self, name: str, directory: Path) -> None:
        """Load an adapter on every server that is up, and on the others when they come. Raises EngineError."""
        self._adapters[name] = directory
        try:
            await asyncio.gather(*(self._load_or_down(server, name) for server in self.all if server.up))
        except EngineError:
            del self._adapters[name]
            raise

    async def unload(self, name: str) -> None:
        """Unload an adapter that no request uses, everywhere. Raises EngineError."""
        del self._adapters[name]
        kept = []
        for server in [server for server in self.all if server.up]:
            with suppress(aiohttp.ClientError, TimeoutError):  # the watcher sees it
                status, answer = await self._post(server, "/unload_lora_adapter", {"lora_name": name})
                if status != 200:
                    kept.append(f"{server.url} does not unload adapter {name!r}: {_message(answer)}")
        if kept:
            raise EngineError("; ".join(kept))

    async def generate(self, body: Mapping[str, Any], affinity: str) -> Any:
        """What ``/generate`` of one of the servers answers. Raises EngineError."""
        for server in self.order(affinity):
            try:
                status, answer = await self._post(server, "/generate", body)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.down(server, reason(error))
                continue
            if status != 200:
                raise EngineError(f"{server.url}/generate answers {status}: {_message(answer)}")
            return answer
        raise EngineError(self.none_up())

    def none_up(self) -> str:
        """What to say when no server is up."""
        return f"no SGLang server is up ({'; '.join(f'{one.url}: {one.why}' for one in self.all)}): start one"

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await asyncio.gather(*map(self._check, self.all))

    async def _check(self, server: Server) -> None:
        try:
            async with self.session.get(f"{server.url}/ready", timeout=_PROBE) as answer:
                if answer.status != 200:
                    return self.down(server, f"/ready answers {answer.status}")
            if server.up:
                return
            loaded: set[str] = set()
            while missing := [name for name in self._adapters if name not in loaded]:  # more may come meanwhile
                await self._load(server, missing[0])
                loaded.add(missing[0])
        except (aiohttp.ClientError, TimeoutError, EngineError) as error:
            return self.down(server, reason(error))
        server.up, server.why = True, ""
        logger.info("%s is up with %d adapters", server.url, len(self._adapters))

    async def _describe(self) -> None:
        """Name and limits, from the first server that is up. Raises EngineError when there is none."""
        for server in self.order(""):
            models = (await self._get(server, "/v1/models"))["data"]
            self.name, self.max_tokens = models[0]["id"], int(models[0]["max_model_len"])
            self.max_rank = (await self._get(server, "/server_info")).get("max_lora_rank")
            return
        raise EngineError(self.none_up())

    async def _load_or_down(self, server: Server, name: str) -> None:
        try:
            await self._load(server, name)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.down(server, reason(error))  # it gets the adapter when it comes back

    async def _load(self, server: Server, name: str) -> None:
        directory = self._adapters[name]
        given = {"lora_name": name, "lora_path": str(directory)}
        status, answer = await self._post(server, "/load_lora_adapter", given)
        # Names tell their contents, so one that is held already, from an earlier start of the gateway, is this one.
        if status != 200 and name not in (answer.get("loaded_adapters") or {}):
            raise EngineError(f"{server.url} does not load adapter {name!r} from {directory}: {_message(answer)}")

    async def _get(self, server: Server, path: str) -> Any:
        try:
            async with self.session.get(server.url + path, timeout=_PROBE) as answer:
                if answer.status == 200:
                    return json.loads(await answer.read())
                why = f"{answer.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = reason(error)
        raise EngineError(f"{server.url}{path}: {why}: is it an SGLang server, and the API key right?")

    async def _post(self, server: Server, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        async with self.session.post(server.url + path, json=body, timeout=_CONTROL) as answer:
            data = await answer.read()
        try:
            return answer.status, json.loads(data)
        except ValueError:
            raise EngineError(
                f"{server.url}{path} answers {answer.status} and no JSON: is it an SGLang server?"
            ) from None


def reason(error: Exception) -> str:
    """An error of the connection in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _message(answer: Any) -> str:
    found = (
        answer.get("error_message") or answer.get("message") or answer.get("error")
        if isinstance(answer, dict)
        else None
    )
    return " ".join(str(found or answer).split())[:300]
