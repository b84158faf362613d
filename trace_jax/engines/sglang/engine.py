"""The SGLang engine: real servers, adapters in step on all of them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from trace_jax.engines.protocol import Completion, Sampling, checked_prompt
from trace_jax.engines.sglang.adapter_files import AdapterFiles, adapter_files
from trace_jax.engines.sglang.pool import Pool, alone
from trace_jax.engines.sglang.probe import Probe
from trace_jax.engines.sglang.relay_delivery import RelayDelivery
from trace_jax.engines.sglang.replica import Delivery, Replica, SharedDirectory
from trace_jax.engines.sglang.server import Refused, ServerFailed, Settings, SGLangServer
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig

ATTEMPTS = 6

T = TypeVar("T")


class SGLangEngine:
    """Serves ``Engine`` from SGLang servers, which must hold the same base weights.

    Every adapter is on every server that gets requests: a server that was away is brought up to date first. An adapter
    of a name that was not loaded here is refused before any server is asked, since a server would load one again that
    it has unloaded.

    Args:
        urls: ``http://HOST:PORT`` of each server.
        config: the base model.
        stop_token_ids: a completion ends with the first of these; servers add their model's end-of-text tokens.
        relays: URL of the relay beside each server; none where the servers see the files that we see.
        api_key: the servers' own, if they were started with one.
        slots: requests in flight on a server; more wait.
        capacity: tokens of prompt and completion together that a request may have.
        attempts: of one request that servers fail, before it is given up as the one at fault.
        request_seconds: for a generation, a loading or an unloading; of a generation it is given up after two of them.
        wait_seconds: how long requests wait when no server is left, or all are too busy, before they are given up.
    """

    def __init__(
        self,
        urls: Sequence[str],
        config: DecoderConfig,
        stop_token_ids: Sequence[int],
        *,
        relays: Sequence[str] = (),
        api_key: str | None = None,
        slots: int = 64,
        capacity: int = 512,
        attempts: int = ATTEMPTS,
        request_seconds: float = 300.0,
        wait_seconds: float = 600.0,
    ) -> None:
        self._config, self._capacity, self._stop_ids = config, capacity, tuple(stop_token_ids)
        self._adapters: dict[str, AdapterFiles] = {}
        servers = [SGLangServer(url, request_seconds, api_key) for url in urls]
        through = [RelayDelivery(url, request_seconds) for url in relays]
        deliveries: Sequence[Delivery] = through or [*map(SharedDirectory, servers)]
        probe = Probe(config.vocab_size, capacity)
        replicas = [
            Replica(server, delivery, self._adapters, probe, capacity)
            for server, delivery in zip(servers, deliveries, strict=True)
        ]
        self._pool = Pool(replicas, seats=slots, attempts=attempts, wait_seconds=wait_seconds)
        self._changing = threading.Lock()  # of adapters: one at a time, so that none is blamed for another

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        """Sample after ``token_ids``, on another server if the first one fails.

        Raises:
            EngineGone: no server is left, and none came in time.
            EngineError: unknown adapter; no prompt, token ids outside the vocabulary, more tokens than ``capacity``;
                impossible sampling; the server refused, failed several times or returned what is not finite.
        """
        checked_prompt(token_ids, sampling, self._config.vocab_size, self._capacity)

        async def request(server: SGLangServer, name: str | None) -> Completion:
            try:
                return await server.generate(token_ids, sampling, name, self._stop_ids)
            except Refused as refusal:
                if name is not None and await server.lost(name, str(refusal)):
                    raise ServerFailed(f"{refusal}: it has lost its adapters") from None
                raise

        async with self.asking(request, adapter, affinity) as completion:
            return completion

    @asynccontextmanager
    async def asking(
        self,
        request: Callable[[SGLangServer, str | None], Coroutine[Any, Any, T]],
        adapter: str | None = None,
        affinity: str = "",
    ) -> AsyncIterator[T]:
        """The answer of a server to ``request``, which is told how the server calls ``adapter``.

        The server counts as busy while the context is open. ``request`` raises ServerFailed for what another server may
        do better. Raises EngineGone, EngineError, and what else ``request`` raises.
        """

        async def ask(replica: Replica) -> T:
            return await request(replica.server, None if adapter is None else self._known(adapter).name)

        if adapter is not None:
            self._known(adapter)
        async with self._pool.asking(ask, affinity) as answer:
            yield answer

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under a new name on every server, and see that each computes with it.

        The files have to stay until the adapter is unloaded. Raises UserError for an adapter that cannot be served,
        EngineError for a server that ignores or refuses it, and EngineGone.
        """
        async with alone(self._changing):
            if name in self._adapters:
                raise EngineError(f"adapter {name!r} is loaded already: names are immutable, so use a new one")
            self._adapters[name] = await asyncio.to_thread(adapter_files, name, path, self._config)
            try:
                await self._pool.update()
                await self._pool.wait()
            except BaseException as error:
                del self._adapters[name]
                if isinstance(error, EngineError):
                    with suppress(EngineError):
                        await self._pool.update()  # where it was taken, it goes again
                raise

    async def unload_adapter(self, name: str) -> None:
        """Unload it on every server that is there; one that is away does it before it gets requests again."""
        async with alone(self._changing):
            self._known(name)
            del self._adapters[name]
            await self._pool.update()

    @property
    def serving(self) -> tuple[str, ...]:
        """The servers that get requests at the moment."""
        return tuple(replica.url for replica in self._pool.serving)

    async def settings(self) -> list[Settings]:
        """What each of the servers that get requests was started with. Raises EngineGone if none comes."""
        await self._pool.update()
        await self._pool.wait()
        return [replica.settings for replica in self._pool.serving if replica.settings]

    async def health(self) -> bool:
        """True if a server takes requests, all adapters in place."""
        await self._pool.update()
        return bool(self._pool.serving)

    def _known(self, adapter: str) -> AdapterFiles:
        if (files := self._adapters.get(adapter)) is None:
            known = ", ".join(self._adapters) or "none"
            raise EngineError(f"adapter {adapter!r} is not loaded; loaded are {known}: load it first")
        return files
