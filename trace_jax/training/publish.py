"""The learner's adapter in the engine: a new immutable name for every version, the old one removed."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import LoRA
from trace_jax.models.peft import save_peft
from trace_jax.rollout.engine import Engine, EngineError


@runtime_checkable
class InMemoryEngine(Protocol):
    """An engine in this process: it takes the arrays themselves."""

    def set_adapter(self, name: str, lora: LoRA) -> None: ...

    def flush(self) -> None:
        """Forget what earlier requests have left: a step then samples the same bits after a resume as without one."""


class Publisher:
    """Keeps exactly one version of an adapter loaded in ``engine``; none after the ``with`` block.

    Since every version has its own name, nothing that the engine caches by adapter name outlives its weights.
    """

    def __init__(self, engine: Engine, config: DecoderConfig, base: str) -> None:
        self._engine, self._config, self._base = engine, config, base
        self._loaded: str | None = None

    def publish(self, name: str, lora: LoRA) -> None:
        """Unload the version before and load ``lora`` (A = 1) under a name never used before."""
        self.close()
        if isinstance(self._engine, InMemoryEngine):
            self._engine.flush()
            self._engine.set_adapter(name, lora)
        else:
            directory = Path(tempfile.mkdtemp(prefix="adapter-"))
            try:
                save_peft(lora, self._config, directory, self._base)
                asyncio.run(self._engine.load_adapter(name, directory))
            finally:
                shutil.rmtree(directory)
        self._loaded = name

    def close(self) -> None:
        """Unload what is loaded."""
        if self._loaded is not None:
            asyncio.run(self._engine.unload_adapter(self._loaded))
            self._loaded = None

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
