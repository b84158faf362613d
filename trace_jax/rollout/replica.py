"""A server kept in step with the adapters that it should have."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from trace_jax.rollout.adapter_files import AdapterFiles, louder
from trace_jax.rollout.engine import EngineError
from trace_jax.rollout.sglang_server import Refused, SGLangServer

log = logging.getLogger(__name__)

_PROBE_TOKENS = 64
CHANGE = 0.1  # nats, mean |Δ log-probability| of the probe: more than rounding in bfloat16 makes of equal weights


class Delivery(Protocol):
    """How adapters get into one server, and out of it. Raises ServerFailed or Refused."""

    async def load(self, files: AdapterFiles) -> None: ...

    async def unload(self, name: str) -> None: ...


class SharedDirectory:
    """The server sees the files under the same path."""

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
    """A server with the adapters that it should have. A member of the pool."""

    def __init__(
        self,
        server: SGLangServer,
        delivery: Delivery,
        wanted: Mapping[str, AdapterFiles],
        vocab_size: int,
        capacity: int,
    ) -> None:
        self.server, self.url = server, server.url
        self._delivery, self._wanted, self._capacity = delivery, wanted, capacity
        self._probe = np.random.default_rng(0).integers(vocab_size, size=min(_PROBE_TOKENS, capacity - 1)).tolist()
        self._verified: set[str] = set()  # names on the server
        self._settings: Mapping[str, object] = {}

    async def ready(self) -> None:
        """Return if it takes requests."""
        await self.server.ready()

    def doubt(self) -> None:
        """It may have been started anew: nothing that was known of it holds."""
        self._verified, self._settings = set(), {}

    async def update(self) -> None:
        """Load and verify the adapters that are wanted and missing, unload those of ours that are not wanted."""
        await self.server.ready()
        if not self._settings:
            self._settings = await self.server.settings()
            await self._check_context()
        wanted = {files.name: files for files in list(self._wanted.values())}
        loaded = await self.server.adapters()
        ours = {files.path.parent for files in wanted.values()}
        if not self._verified & loaded.keys():
            self._verified = set()  # one that had to make room still has some; a new process has none
        left = {name for name, path in loaded.items() if name in wanted or Path(path).parent in ours}  # by a killed run
        for name in (self._verified - wanted.keys()) | (left - self._verified):
            await self._unload(name)
        for name, files in wanted.items():
            if name not in self._verified:
                await self._load(files)
                self._verified.add(name)

    async def _load(self, files: AdapterFiles) -> None:
        self._check_settings(files)
        started = time.monotonic()
        await self._delivery.load(files)
        try:
            change = await self._change(files)
        except EngineError:
            with suppress(EngineError):
                await self._unload(files.name)
            raise
        log.info(
            "%s: %s, %d bytes, loaded and verified in %.2f s (mean |Δ log-probability| %.2g)",
            self.url, files.name, files.bytes, time.monotonic() - started, change,
        )  # fmt: skip

    async def _change(self, files: AdapterFiles) -> float:
        """How much the adapter changes the probe. Raises EngineError if the server ignores it."""
        if not files.loudness:
            return 0.0  # it computes what the base computes, and nothing can tell the two apart
        change = await self._distance(files.name)
        if change < CHANGE:
            with louder(files) as loud:
                await self._delivery.load(loud)
                try:
                    found = await self._distance(loud.name)
                finally:
                    await self._unload(loud.name)
            if found < CHANGE:
                raise EngineError(
                    f"{self.url} took adapter {files.name} and computes as if it had not (mean |Δ log-probability| "
                    f"{found:.2g} of a louder copy): see its log for skipped modules, and its --lora-target-modules"
                )
        return change

    async def _distance(self, name: str) -> float:
        base, adapted = await self.server.prompt_logprobs(self._probe, [None, name])
        distance = float(np.abs(adapted - base).mean())
        if not np.isfinite(distance):
            raise EngineError(f"{self.url}: log-probabilities under {name} are not finite: check the adapter")
        return distance

    async def _unload(self, name: str) -> None:
        self._verified.discard(name)
        try:
            await self._delivery.unload(name)
        except Refused as refusal:  # it is not there: the server has dropped it to make room
            log.debug("%s", refusal)

    async def _check_context(self) -> None:
        context, cache = await self.server.context(), self._settings.get("max_total_num_tokens")
        most = min(context, cache) if isinstance(cache, int) else context
        if most < self._capacity:
            raise EngineError(
                f"{self.url} takes {most} tokens a request, engine.capacity is {self._capacity}: start it with a "
                "larger --context-length or --max-total-tokens, or lower engine.capacity"
            )

    def _check_settings(self, files: AdapterFiles) -> None:
        """Raise EngineError for an adapter that the server was not started for."""
        settings = self._settings
        if not settings.get("enable_lora"):
            raise EngineError(f"{self.url} serves no adapters: start it with --enable-lora")
        largest = settings.get("max_lora_rank")
        if isinstance(largest, int) and files.rank > largest:
            raise EngineError(
                f"{self.url} takes adapters up to rank {largest}, {files.name} has {files.rank}: start it with "
                f"--max-lora-rank={files.rank}"
            )
        modules = settings.get("lora_target_modules")
        if isinstance(modules, list) and "all" not in modules and (missing := set(files.targets) - set(modules)):
            raise EngineError(
                f"{self.url} takes no adapters on {', '.join(sorted(missing))}: add them to its --lora-target-modules"
            )
