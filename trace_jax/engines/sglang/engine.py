"""The SGLang engine: a pool of servers that all hold the same adapters."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from trace_jax.engines.protocol import Completion, Sampling, checked_prompt
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.adapter_files import AdapterFiles, adapter_files
from trace_jax.engines.sglang.pool import Pool, locked
from trace_jax.engines.sglang.probe import Probe
from trace_jax.engines.sglang.relay_delivery import RelayDelivery
from trace_jax.engines.sglang.replica import Delivery, Replica, SharedDirectory
from trace_jax.engines.sglang.server import Refused, ServerFailed, ServerInfo, SGLangServer
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig

ATTEMPTS = 6  # of a request

T = TypeVar("T")


class SGLangEngine:
    """An ``Engine`` made of SGLang servers, which must hold the same base weights.

    Every server that gets requests has every adapter. A server that was away is brought up to date first. A request for
    an adapter that was not loaded here is refused before it is sent, because a server would load again an adapter that
    it has unloaded.

    Args:
        urls: ``http://HOST:PORT`` of each server.
        config: the base model.
        stop_token_ids: a completion ends with the first token that is among these. Servers add their own model's
            end-of-text tokens.
        settings: ``slots`` is the number of requests in flight on a server, further requests wait; ``capacity`` bounds
            the tokens of a request's prompt and completion together. ``request_seconds`` is the timeout of one
            generation (two timeouts, and it is given up), and of loading and unloading an adapter. ``wait_seconds``
            bounds the wait of requests while no server is left, or all are busy.
        relays: URL of the relay of each server; empty if the servers see the files that we see.
        api_key: the value of the servers' --api-key, if they were started with one.
        attempts: of a request that servers fail, before the request itself is taken to be at fault.
    """

    def __init__(
        self,
        urls: Sequence[str],
        config: DecoderConfig,
        stop_token_ids: Sequence[int],
        settings: EngineSettings,
        *,
        relays: Sequence[str] = (),
        api_key: str | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._config, self._capacity, self._stop_ids = config, settings.capacity, tuple(stop_token_ids)
        self._adapters: dict[str, AdapterFiles] = {}
        servers = [SGLangServer(url, settings.request_seconds, api_key) for url in urls]
        relayed = [RelayDelivery(url, settings.request_seconds) for url in relays]
        deliveries: Sequence[Delivery] = relayed or [*map(SharedDirectory, servers)]
        probe = Probe(config.vocab_size, settings.capacity)
        replicas = [
            Replica(server, delivery, self._adapters, probe, settings.capacity)
            for server, delivery in zip(servers, deliveries, strict=True)
        ]
        self._pool = Pool(replicas, slots=settings.slots, attempts=attempts, wait_seconds=settings.wait_seconds)
        self._changing = threading.Lock()  # one adapter is changed at a time, so that no error is blamed on another

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        """Sample after ``token_ids``, on another server if the first one fails.

        Raises:
            EngineGone: no server is left, and none came back in time.
            EngineError: an unknown adapter, an empty prompt, a token id outside the vocabulary, more tokens than
                ``capacity``, sampling parameters out of range; a server refused the request, servers failed it
                several times, a log-probability is not finite, or the server's model has other end tokens.
        """
        checked_prompt(token_ids, sampling, self._config.vocab_size, self._capacity)

        async def request(server: SGLangServer, name: str | None) -> Completion:
            try:
                completion = await server.generate(token_ids, sampling, name, self._stop_ids)
            except Refused as refusal:
                if name is not None and await server.lost(name, str(refusal)):
                    raise ServerFailed(f"{refusal}: it has lost its adapters") from None
                raise
            self._check_end(server.url, completion)
            return completion

        async with self.response(request, adapter, affinity) as completion:
            return completion

    @asynccontextmanager
    async def response(
        self,
        request: Callable[[SGLangServer, str | None], Coroutine[Any, Any, T]],
        adapter: str | None = None,
        affinity: str = "",
    ) -> AsyncIterator[T]:
        """The response of one server to ``request``, which gets the server and its name for ``adapter``.

        The server's slot is held while the context is open. If ``request`` raises ServerFailed, it is sent to another
        server. Raises EngineGone, EngineError, and any other error of ``request``.
        """

        async def send(replica: Replica) -> T:
            return await request(replica.server, None if adapter is None else self._known(adapter).name)

        if adapter is not None:
            self._known(adapter)
        async with self._pool.response(send, affinity) as response:
            yield response

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under a new name on every server, and verify that each server computes with it.

        The files must exist until the adapter is unloaded. Raises UserError for an adapter that cannot be served,
        EngineError for a server that ignores or refuses it, and EngineGone.
        """
        async with locked(self._changing):
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
                        await self._pool.update()  # unload it from the servers that took it
                raise

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter on every server that answers. Another server does so before it gets requests again."""
        async with locked(self._changing):
            self._known(name)
            del self._adapters[name]
            await self._pool.update()

    @property
    def serving(self) -> tuple[str, ...]:
        """URLs of the servers that get requests at the moment."""
        return tuple(replica.url for replica in self._pool.serving)

    async def server_info(self) -> list[ServerInfo]:
        """How each server that gets requests was started. Raises EngineGone if no server answers in time."""
        await self._pool.update()
        await self._pool.wait()
        return [replica.info for replica in self._pool.serving if replica.info]

    async def health(self) -> bool:
        """Whether a server that has all adapters takes requests."""
        await self._pool.update()
        return bool(self._pool.serving)

    def _check_end(self, url: str, completion: Completion) -> None:
        """Raise EngineError if the server ended a turn at a token that is text to the renderer."""
        last = completion.token_ids[-1]
        if self._stop_ids and completion.finish_reason == "stop" and last not in self._stop_ids:
            raise EngineError(
                f"{url} ended a completion at token {last}, which ends no turn of the base here: let the server and "
                "base.path have the same generation_config.json and tokenizer"
            )

    def _known(self, adapter: str) -> AdapterFiles:
        if (files := self._adapters.get(adapter)) is None:
            known = ", ".join(self._adapters) or "none"
            raise EngineError(f"adapter {adapter!r} is not loaded; loaded are {known}: load it first")
        return files
