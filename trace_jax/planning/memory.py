"""The memory that a compiled program needs on a chip, also for a program that does not fit."""

import re
from dataclasses import dataclass
from typing import Any

from trace_jax.planning.chips import GIB

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}
_SIZE = r"([\d.]+)([KMGT]?)"
# "…CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (64.12G) exceeds
# available HBM (15.75G)", and the older "…CompileTimeHbmOom: … Used 46.38G of 15.75G hbm".
_OUT_OF_MEMORY = (
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
    re.compile(rf"{_SIZE} of {_SIZE}"),
)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. Results that are written over arguments count as ``aliased``."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @property
    def peak(self) -> int:
        """Bytes needed at the same time: the program, its arguments, its other results, and its temporaries."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


def memory_of(compiled: Any) -> Memory:
    """The memory of a compiled program (``jax.stages.Compiled``).

    Temporaries are the bytes that XLA allocates in addition to arguments and results. libtpu compares this total with
    the chip's memory. ``temp_size_in_bytes`` is larger, because it counts overlapping scratch space twice.
    """
    stats = compiled.memory_analysis()
    fixed = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    total = getattr(stats, "total_allocation_bytes", 0) or fixed + stats.temp_size_in_bytes
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=max(0, total - fixed),
        program=stats.generated_code_size_in_bytes,
    )


def out_of_memory(message: str) -> tuple[int, int] | None:
    """Needed and available bytes, from a compiler's error message; None if the error has another cause."""
    if "RESOURCE_EXHAUSTED" not in message or "hbm" not in message.lower():
        return None
    for pattern in _OUT_OF_MEMORY:
        match = pattern.search(message)
        if match:
            needed, unit, available, other = match.groups()
            return round(float(needed) * _UNITS.get(unit, 1)), round(float(available) * _UNITS.get(other, 1))
    return None
