"""The learner's adapter in the engine: a new immutable name for every version, old ones removed."""

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
    """An engine in this process: it takes the arrays themselves."""

    def set_adapter(self, name: str, lora: LoRA) -> None: ...

    def flush(self) -> None:
        """Forget what earlier requests have left: a step then samples the same bits after a resume as without one."""


class Publisher:
    """Keeps the newest ``versions`` of an adapter loaded in ``engine``; none after the ``with`` block.

    Since every version has its own name, nothing that the engine caches by adapter name outlives its weights. An engine
    elsewhere reads them as PEFT directories below ``directory``, whole from the moment they can be seen and there until
    they are unloaded: a server may read one again. What a killed run has left there is removed.
    ``run`` is where the engine's coroutines run: the event loop of the episodes, if there are some in flight.

    Attributes:
        metrics: of the last ``publish`` to an engine elsewhere: seconds from arrays to verified, bytes of the files.
    """

    def __init__(
        self,
        engine: Engine,
        config: DecoderConfig,
        base: str,
        directory: PathLike,
        versions: int = 1,
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
    ) -> None:
        self._engine, self._config, self._base, self._versions, self._run = engine, config, base, versions, run
        self._given: Path | None = Path(directory).absolute() if is_local(directory) else None
        self._directory: Path | None = None
        self._loaded: list[str] = []  # oldest first
        self.metrics: dict[str, float] = {}

    def publish(self, name: str, lora: LoRA) -> None:
        """Load ``lora`` (A = 1) under a name never used before, in place of the oldest version if there is no room."""
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
        """Unload what is loaded."""
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
            if self._given is None:  # no local work directory: servers get the files by other means than a common disk
                self._directory = Path(tempfile.mkdtemp(prefix="published-"))
            else:
                shutil.rmtree(self._given, ignore_errors=True)
                self._given.mkdir(parents=True)
                self._directory = self._given
        path, unfinished = self._directory / name, self._directory / f".{name}"
        save_peft(lora, self._config, unfinished, self._base)
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
        except EngineError:  # still playing what was interrupted: no news beside the interruption
            if error is None:
                raise
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
