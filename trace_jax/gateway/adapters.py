"""The adapters that serve conversations: those of the route table, and merges made when they are needed."""

import asyncio
import hashlib
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trace_jax.contract.adapter import MANIFEST, AdapterManifest, check_adapter, check_peft_files
from trace_jax.contract.digest import Checksum
from trace_jax.contract.files import read_document
from trace_jax.contract.routing import RouteTable
from trace_jax.errors import TraceError, UserError
from trace_jax.gateway.backend import Backend
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.peft import load_peft, save_peft
from trace_jax.models.lora import merge

logger = logging.getLogger(__name__)

Parts = Mapping[str, float]  # adapters of the route table with their merge weights; empty: the base


@dataclass(frozen=True)
class Held:
    """An adapter of the route table."""

    directory: Path  # in PEFT's format
    rank: int
    files: Mapping[str, Checksum] = field(default_factory=dict)  # of the directory, checked whenever it is read


@dataclass
class _Merge:
    loading: "asyncio.Task[None]"
    loaded: bool = False
    users: int = 0
    unloading: "asyncio.Task[None] | None" = None


class Adapters:
    """Puts adapters into the backend: the route table's under their names, merges as ``merged@HASH`` of their parts.

    Args:
        held: the route table's, by name.
        directory: for the files of merges, which the backend reads. It is emptied.
        max_merged: merges that the backend holds at a time. The least recently used one that serves no request is
            unloaded first.
        base: name of the base model, for the merges' own records.
    """

    def __init__(
        self,
        held: Mapping[str, Held],
        backend: Backend,
        config: DecoderConfig,
        base: str,
        directory: Path,
        max_merged: int,
    ) -> None:
        self._held, self._backend, self._config, self._base = held, backend, config, base
        self._directory, self._max_merged = directory, max_merged
        self._merges: OrderedDict[str, _Merge] = OrderedDict()  # by time of use
        self._changed = asyncio.Event()  # set when there may be room for a merge
        shutil.rmtree(directory, ignore_errors=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the route table's adapters."""
        return tuple(self._held)

    @property
    def merged(self) -> int:
        """How many merges are held."""
        return len(self._merges)

    async def load(self) -> None:
        """Load all adapters of the route table. Raises EngineError."""
        for name, adapter in self._held.items():
            await self._backend.load(name, adapter.directory)

    def too_large(self, parts: Parts) -> str:
        """Why the backend cannot hold the merge of ``parts``; empty if it can. A merge has the sum of their ranks."""
        rank, limit = sum(self._held[name].rank for name in parts), self._backend.max_rank
        if limit is None or rank <= limit:
            return ""
        return f"merged rank {rank} exceeds the server's {limit}: raise its --max-lora-rank"

    @asynccontextmanager
    async def use(self, parts: Parts) -> AsyncIterator[str | None]:
        """The backend's name for the adapter of ``parts`` (None: the base), which it holds while the context is open.

        Raises UserError or EngineError when it cannot be made or loaded; EngineGone and ServerFailed are outages.
        """
        if not parts:
            yield None
        elif list(parts.values()) == [1.0]:
            yield next(iter(parts))
        else:
            name = _merged_name(parts)
            entry = await self._take(name, parts)
            try:
                await asyncio.shield(entry.loading)
                yield name
            finally:
                entry.users -= 1
                self._changed.set()

    async def _take(self, name: str, parts: Parts) -> _Merge:
        """Count a use of the merge, and begin to load it if it is not there. Waits while all merges are in use."""
        while (entry := self._merges.get(name)) is None or entry.unloading:
            if entry is None and len(self._merges) < self._max_merged:
                entry = self._begin(name, parts)
                break
            self._make_room()
            self._changed.clear()
            await self._changed.wait()
        self._merges.move_to_end(name)
        entry.users += 1
        return entry

    def _begin(self, name: str, parts: Parts) -> _Merge:
        """Begin to load a merge. Loading goes on when the client that asked for it leaves."""
        entry = self._merges[name] = _Merge(asyncio.create_task(self._make(name, parts)))

        def done(loading: "asyncio.Task[None]") -> None:
            entry.loaded = not loading.cancelled() and not loading.exception()
            if not entry.loaded:
                del self._merges[name]  # the next request tries again
            self._changed.set()

        entry.loading.add_done_callback(done)
        return entry

    def _make_room(self) -> None:
        """Begin to unload the least recently used merge that serves no request, unless one is being unloaded."""
        if not any(entry.unloading for entry in self._merges.values()):
            for name, entry in self._merges.items():
                if entry.loaded and not entry.users:
                    entry.unloading = asyncio.create_task(self._drop(name))
                    return

    async def _make(self, name: str, parts: Parts) -> None:
        directory = self._directory / name
        try:
            await asyncio.to_thread(self._write, parts, directory)
        except OSError as error:
            raise UserError(f"{directory} cannot be written ({error}): make room, or let it be written") from None
        await self._backend.load(name, directory)

    def _write(self, parts: Parts, directory: Path) -> None:
        for held in (self._held[name] for name in parts):
            check_peft_files(held.directory, held.files, "the manifest that the gateway started with")
        loras = [load_peft(self._held[name].directory, self._config) for name in parts]
        save_peft(merge(loras, list(parts.values())), self._config, directory, self._base)

    async def _drop(self, name: str) -> None:
        try:
            await self._backend.unload(name)
        except TraceError as error:
            logger.warning("merge %s stays on a server: %s", name, error)
        finally:
            shutil.rmtree(self._directory / name, ignore_errors=True)
            del self._merges[name]
            self._changed.set()


def _merged_name(parts: Parts) -> str:
    text = "+".join(f"{weight!r}*{name}" for name, weight in sorted(parts.items()))
    return f"merged@{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def held_adapters(root: Path, table: RouteTable) -> dict[str, Held]:
    """The adapters of the table. Raises UserError if one is missing, was changed or swapped, or has another base."""
    held = {}
    for route in table.routes:
        path = root / "adapters" / route.adapter / MANIFEST
        manifest = read_document(path, AdapterManifest)
        if manifest.base != table.base:
            raise UserError(
                f"{path}: adapter of base {manifest.base}, but the route table is of {table.base}: restore the file"
            )
        if manifest.name != route.adapter:
            raise UserError(
                f"{path}: manifest of adapter {manifest.name!r}, but the table routes to {route.adapter!r}: the "
                "directories of the adapters were swapped: restore them"
            )
        held[route.adapter] = Held(Path(check_adapter(path, manifest)), manifest.rank, manifest.files)
    return held
