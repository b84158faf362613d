"""Publishing adapters to the engine: a new immutable name for every version, and old versions unloaded."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from trace_jax.contract.storage import PathLike, is_local, sync_directory
from trace_jax.engines.protocol import Engine
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA


@runtime_checkable
class InMemoryEngine(Protocol):
    """An engine in this process, which takes the arrays themselves."""

    def set_adapter(self, name: str, lora: LoRA) -> None: ...

    def flush(self) -> None:
        """Forget the caches of earlier requests, so that a step samples the same bits after a resume as without one."""


class Publisher:
    """Keeps the newest ``versions`` of an adapter loaded in ``engine``; after the ``with`` block none is loaded.

    Every version has its own name, so nothing that the engine caches by adapter name outlives its weights. An engine in
    another process reads the versions as PEFT directories below ``directory``. A directory becomes visible when it is
    whole, and stays until its version is unloaded, because a server may read it again. Directories left by a killed run
    are removed.

    Args:
        model: shape of the base.
        base: revision of the base.
        run: runs the engine's coroutines; with episodes in flight it must use their event loop.

    Attributes:
        metrics: of the last ``publish`` to an engine in another process: seconds until it was verified, and the bytes
            of its files.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        model: DecoderConfig,
        base: str,
        directory: PathLike,
        versions: int = 1,
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
    ) -> None:
        self._engine, self._model, self._base, self._versions, self._run = engine, model, base, versions, run
        self._given: Path | None = Path(directory).absolute() if is_local(directory) else None
        self._directory: Path | None = None
        self._loaded: list[str] = []  # oldest first
        self.metrics: dict[str, float] = {}

    def publish(self, name: str, lora: LoRA) -> None:
        """Load ``lora`` (A = 1) under a name never used before. The oldest version is unloaded if there is no room."""
        while len(self._loaded) >= self._versions:
            self._unload()
        if isinstance(self._engine, InMemoryEngine):
            if self._versions == 1:
                self._engine.flush()
            self._engine.set_adapter(name, lora)
            self._loaded.append(name)
            return
        started = time.monotonic()
        path = self._export(name, lora)
        try:
            self._run(self._engine.load_adapter(name, path))
        except BaseException:
            shutil.rmtree(path)
            raise
        self._loaded.append(name)
        size = sum(file.stat().st_size for file in path.iterdir())
        self.metrics = {"time/sync_seconds": time.monotonic() - started, "sync/bytes": float(size)}

    def close(self) -> None:
        """Unload all versions."""
        while self._loaded:
            self._unload()

    def _unload(self) -> None:
        name = self._loaded[0]
        self._run(self._engine.unload_adapter(name))
        del self._loaded[0]
        if self._directory is not None:
            shutil.rmtree(self._directory / name)

    def _export(self, name: str, lora: LoRA) -> Path:
        if self._directory is None:
            if self._given is None:  # no local work directory: servers get the files through a relay
                self._directory = Path(tempfile.mkdtemp(prefix="published-"))
            else:
                shutil.rmtree(self._given, ignore_errors=True)
                self._given.mkdir(parents=True)
                self._directory = self._given
        path, unfinished = self._directory / name, self._directory / f".{name}"
        save_peft(lora, self._model, unfinished, self._base)
        os.rename(unfinished, path)
        sync_directory(self._directory)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except EngineError:  # requests of an interrupted run are still in flight: the interruption is what counts
            if error is None:
                raise
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
