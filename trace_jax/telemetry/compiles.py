"""A log of XLA compilations, with name, argument shapes and seconds; and the cache of compiled programs."""

import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from trace_jax.contract.lines import LineLog
from trace_jax.contract.storage import PathLike

_DURATION = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_LOWERING = logging.getLogger("jax._src.interpreters.pxla")  # the only place where JAX reports the shapes


@dataclass(frozen=True)
class Compile:
    """One compilation. ``name`` is JAX's, for instance ``jit(step)``; ``cached``: read from the persistent cache."""

    name: str
    shapes: str
    seconds: float
    cached: bool


class CompileLog:
    """Collects the compilations of a ``with`` block in ``compiles``, and in a JSON Lines file if ``path`` is given.

    with CompileLog() as log:
        step(batch)
    assert log.count("jit(step)") == 1
    """

    def __init__(self, path: PathLike | None = None) -> None:
        self.compiles: list[Compile] = []
        self._log = LineLog(path) if path is not None else None
        self._thread, self._lock = threading.local(), threading.Lock()
        self._shapes = _ShapeFilter(self._thread)

    def count(self, name: str) -> int:
        """How often the function ``name`` was compiled, cache hits included."""
        return sum(compiled.name == name for compiled in self.compiles)

    def seconds(self) -> float:
        """Seconds spent compiling, cache reads included."""
        return sum(compiled.seconds for compiled in self.compiles)

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        self._level = _LOWERING.level
        self._shapes.threshold = _LOWERING.getEffectiveLevel()
        _LOWERING.addFilter(self._shapes)
        _LOWERING.setLevel(logging.DEBUG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LOWERING.setLevel(self._level)
        _LOWERING.removeFilter(self._shapes)
        jax.monitoring.unregister_event_listener(self._on_event)
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        if self._log is not None:
            self._log.close()

    def _on_event(self, event: str, **_: Any) -> None:
        if event == _HIT:
            self._thread.hit = True

    def _on_duration(self, event: str, duration_secs: float, **extra: Any) -> None:
        if event != _DURATION:
            return
        name = str(extra.get("fun_name", ""))
        lowered, shapes = getattr(self._thread, "lowered", ("", ""))
        hit = getattr(self._thread, "hit", False)
        self._thread.hit = False
        compiled = Compile(name, shapes if lowered == name else "", duration_secs, hit)
        with self._lock:
            self.compiles.append(compiled)
            if self._log is not None:
                self._log.append([json.dumps(asdict(compiled)).encode()])


class _ShapeFilter(logging.Filter):
    """Records name and shapes of the function that a thread lowers; drops messages below the logger's own level."""

    def __init__(self, thread: threading.local) -> None:
        super().__init__()
        self.threshold = logging.WARNING
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Compiling %s with global shapes") and isinstance(record.args, tuple):
            name, shapes, *_ = record.args
            arguments = shapes if isinstance(shapes, list | tuple) else [shapes]
            short = [a.str_short() if hasattr(a, "str_short") else str(a) for a in arguments]
            self._thread.lowered = (str(name), ", ".join(short))
        return record.levelno >= self.threshold


def enable_compilation_cache(directory: PathLike | None = None) -> Path | None:
    """Keep compiled programs between runs. Returns the directory in use, or None if an empty name turns the cache off.

    The directory is ``directory``, else ``$JAX_COMPILATION_CACHE_DIR``, else ``trace_jax/jax`` in the user's cache
    directory (``$XDG_CACHE_HOME``, or ``~/.cache``). Call it before the first compilation.
    """
    chosen = os.fspath(directory) if directory is not None else os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(chosen) if chosen else Path(base) / "trace_jax" / "jax"
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # JAX's 1 s skips most of a small model
    return path
