"""Compiles one program ahead of time, for devices that this machine does not have."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from trace_jax.errors import UserError
from trace_jax.planning.buffers import Buffer, largest_buffers
from trace_jax.planning.flops import Formulas
from trace_jax.planning.memory import Memory, memory_of, out_of_memory

LEVELS = ("O0", "O1", "O2", "O3", "default")
_NAMED = 8  # buffers that a plan names


@dataclass(frozen=True)
class Program:
    """One program of a job. ``arguments``: trees of ``jax.ShapeDtypeStruct`` with shardings over ``mesh``'s devices.

    ``times``: runs in one optimiser step. ``formulas``: FLOPs of kernels that do not tell them, by a part of their
    op_name, from the shapes of one chip's operands. ``resident``: bytes that other programs of the job
    keep on each device meanwhile. ``notes``: for its plan.
    """

    name: str
    function: Any  # what jax.jit returned
    arguments: tuple[Any, ...]
    mesh: jax.sharding.Mesh
    times: float = 1.0
    formulas: Formulas = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # further options of the compiler
    resident: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The programs of one optimiser step. ``tokens`` and ``model_flops`` (without recomputation) count all chips."""

    programs: tuple[Program, ...]
    tokens: int | None = None
    model_flops: float | None = None


@dataclass(frozen=True)
class Compiled:
    """A compiled program: ``needed`` and ``available`` bytes of memory on one device. If the compiler gave up because
    the program does not fit, ``text`` is empty and ``memory`` is None."""

    seconds: float
    text: str
    memory: Memory | None
    buffers: tuple[Buffer, ...]
    needed: int
    available: int


def compile_program(program: Program, level: str, available: int) -> Compiled:
    """Lower and compile. ``available``: bytes of memory of one device, unless the compiler names a number itself.

    Raises UserError for an unknown ``level``; the compiler's other errors propagate.
    """
    if level not in LEVELS:
        raise UserError(f"optimisation level {level!r} is unknown: use one of {', '.join(LEVELS)}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plan_") as directory, _compiler(level):
        options = {**program.options, "xla_dump_to": directory, "xla_dump_hlo_as_text": True}
        lowered = program.function.lower(*program.arguments)
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            sizes = out_of_memory(str(error))
            if sizes is None:
                raise
            seconds = time.monotonic() - start
            return Compiled(seconds, "", None, largest_buffers(Path(directory), _NAMED), *sizes)
        seconds = time.monotonic() - start
        memory = memory_of(compiled)
        buffers = largest_buffers(Path(directory), _NAMED)
        return Compiled(seconds, compiled.as_text() or "", memory, buffers, memory.peak, available)


@contextlib.contextmanager
def _compiler(level: str) -> Iterator[None]:
    """The level of optimisation, and no persistent cache: it can write programs for absent devices, but not read them.

    JAX asks only once whether the cache is on, until it is reset.
    """
    settings = {
        "jax_enable_compilation_cache": False,
        "jax_optimization_level": "UNKNOWN" if level == "default" else level,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
