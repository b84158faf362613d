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
_NAMED = 8  # buffers that a plan lists


@dataclass(frozen=True)
class Program:
    """One program of a job.

    Attributes:
        arguments: trees of ``jax.ShapeDtypeStruct`` with shardings over the devices of ``mesh``.
        times: runs in one optimiser step.
        formulas: FLOPs of kernels without a cost estimate: a part of the op_name → a function of the shapes of one
            chip's operands.
        resident: bytes that other programs of the job keep on each device at the same time.
        notes: are added to its plan.
    """

    name: str
    function: Any  # the result of jax.jit
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
    """A compiled program, with the ``needed`` and ``available`` bytes of memory on one device.

    If the compiler failed because the program does not fit, ``text`` is empty and ``memory`` is None.
    """

    seconds: float
    text: str
    memory: Memory | None
    buffers: tuple[Buffer, ...]
    needed: int
    available: int


def compile_program(program: Program, level: str, available: int) -> Compiled:
    """Lower and compile ``program``.

    ``available`` is the memory of one device in bytes; a number in the compiler's out-of-memory error replaces it.
    Raises UserError for an unknown ``level``. Other errors of the compiler propagate.
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
    """Sets the optimisation level and turns the persistent cache off, which cannot read programs for absent devices.

    JAX checks only once whether the cache is on, so the cache is reset.
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
