"""A server that is kept up to date with the adapters that it should have."""

import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from trace_jax.engines.sglang.adapter_files import AdapterFiles, amplified
from trace_jax.engines.sglang.probe import CHANGE, Probe, distance
from trace_jax.engines.sglang.server import Refused, ServerFailed, ServerInfo, SGLangServer
from trace_jax.errors import EngineError

log = logging.getLogger(__name__)

_VERSION = re.compile(r"(?P<policy>.+)@\d+-[0-9a-f]+")  # AdapterFiles' name of a version of a policy


class Delivery(Protocol):
    """How adapters are loaded into one server and unloaded. Both methods raise ServerFailed or Refused."""

    async def load(self, files: AdapterFiles) -> None: ...

    async def unload(self, name: str) -> None: ...


class SharedDirectory:
    """Delivery to a server that sees the files under the same path."""

    def __init__(self, server: SGLangServer) -> None:
        self._server = server

    async def load(self, files: AdapterFiles) -> None:
        try:
            await self._server.load_adapter(files.name, files.path)
        except Refused as refusal:
            raise Refused(f"{refusal} (does it see {files.path}? let it share that disk)") from None

    async def unload(self, name: str) -> None:
        await self._server.unload_adapter(name)


class Replica:
    """A ``PooledServer`` with the adapters that it should have: those of ``wanted``, which may change."""

    def __init__(
        self,
        server: SGLangServer,
        delivery: Delivery,
        wanted: Mapping[str, AdapterFiles],
        probe: Probe,
        capacity: int,
    ) -> None:
        self.server, self.url = server, server.url
        self._delivery, self._wanted, self._probe, self._capacity = delivery, wanted, probe, capacity
        self._verified: set[str] = set()  # names on the server
        self.info: ServerInfo | None = None  # known for every server that gets requests

    async def ready(self) -> None:
        """Return if the server takes requests."""
        await self.server.ready()

    def invalidate(self) -> None:
        """Forget what is known about the server, which may have been started anew."""
        self._verified, self.info = set(), None
        self._probe.forget(self.url)

    async def update(self) -> None:
        """Load and verify wanted adapters that are missing, and unload adapters of ours that are not wanted."""
        await self.server.ready()
        info = self.info = self.info or await self._checked_info()
        wanted = {files.name: files for files in list(self._wanted.values())}
        loaded = await self.server.adapters()
        if not self._verified & loaded.keys():
            self._verified = set()  # a server that made room still has some of them; a new process has none
        for name in (self._verified - wanted.keys()) | _left_over(loaded, wanted):
            await self._unload(name)
        for name, files in wanted.items():
            if name not in self._verified:
                self._check_fits(files, info)
                if name not in loaded or not await self._holds(files):
                    await self._load(files)
                self._verified.add(name)

    async def _holds(self, files: AdapterFiles) -> bool:
        """Whether the server computes with the adapter that it holds under this name, as after a broken connection.

        Unloading it and loading it again would wait for all requests that use it.
        """
        try:
            await self._verify(files)
        except ServerFailed:
            raise
        except EngineError:
            await self._unload(files.name)
            return False
        return True

    async def _load(self, files: AdapterFiles) -> None:
        started = time.monotonic()
        await self._delivery.load(files)
        try:
            change = await self._verify(files)
        except EngineError:
            with suppress(EngineError):
                await self._unload(files.name)
            raise
        log.info(
            "%s: %s, %d bytes, loaded and verified in %.2f s (mean |Δ log-probability| %.2g)",
            self.url, files.name, files.bytes, time.monotonic() - started, change,
        )  # fmt: skip

    async def _verify(self, files: AdapterFiles) -> float:
        """How much the adapter changes the probe. Raises EngineError if the server ignores it."""
        if not files.effect:
            return 0.0  # it computes what the base computes, and nothing can tell the two apart
        change = await self._distance(files.name)
        if change < CHANGE:
            with amplified(files) as copy:
                await self._delivery.load(copy)
                try:
                    found = await self._distance(copy.name)
                finally:
                    await self._unload(copy.name)
            if found < CHANGE:
                raise EngineError(
                    f"{self.url} took adapter {files.name} and computes as if it had not (mean |Δ log-probability| "
                    f"{found:.2g} of an amplified copy): see its log for skipped modules, and its --lora-target-modules"
                )
        return change

    async def _distance(self, name: str) -> float:
        base, adapted = await self.server.prompt_logprobs(self._probe.tokens, [None, name])
        return distance(f"{self.url}, {name}", base, adapted)

    async def _unload(self, name: str) -> None:
        self._verified.discard(name)
        try:
            await self._delivery.unload(name)
        except Refused as refusal:  # it is not there: the server has dropped it to make room
            log.debug("%s", refusal)

    async def _checked_info(self) -> ServerInfo:
        """How the server was started.

        Raises EngineError if it takes fewer than ``capacity`` tokens, or has another base than the other servers.
        """
        info = await self.server.info()
        if info.context < self._capacity:
            raise EngineError(
                f"{self.url} takes {info.context} tokens a request, engine.capacity is {self._capacity}: start it "
                "with a larger --context-length or --max-total-tokens, or lower engine.capacity"
            )
        (base,) = await self.server.prompt_logprobs(self._probe.tokens, [None])
        self._probe.same_base(self.url, base)
        return info

    def _check_fits(self, files: AdapterFiles, info: ServerInfo) -> None:
        """Raise EngineError for an adapter that the server was not started for."""
        if not info.adapters:
            raise EngineError(f"{self.url} serves no adapters: start it with --enable-lora")
        if info.max_rank is not None and files.rank > info.max_rank:
            raise EngineError(
                f"{self.url} takes adapters up to rank {info.max_rank}, {files.name} has {files.rank}: start it "
                f"with --max-lora-rank={files.rank}"
            )
        if info.modules is not None and (missing := set(files.targets) - set(info.modules)):
            raise EngineError(
                f"{self.url} takes no adapters on {', '.join(sorted(missing))}: add them to its --lora-target-modules"
            )


def _left_over(loaded: Mapping[str, str], wanted: Mapping[str, AdapterFiles]) -> set[str]:
    """Names of adapters on a server that are not wanted and that a killed run has left there.

    On a shared disk these are the adapters in the directory of a wanted adapter. Behind a relay, these are other
    versions of a wanted adapter.
    """
    ours = {files.path.parent for files in wanted.values()}
    policies = {found["policy"] for name in wanted if (found := _VERSION.fullmatch(name))}
    versions = {name for name in loaded if (found := _VERSION.fullmatch(name)) and found["policy"] in policies}
    return (versions | {name for name, path in loaded.items() if Path(path).parent in ours}) - wanted.keys()
