"""How much of a chip's memory a compiled program needs, or by how much it does not fit."""

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
    """Bytes on one device. ``peak`` is all that must be there at once: the program, its arguments, its results that are
    not written over arguments (``aliased``), and its temporaries."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @property
    def peak(self) -> int:
        """Bytes needed at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


def memory_of(compiled: Any) -> Memory:
    """The memory of a compiled program (``jax.stages.Compiled``).

    Temporaries are what XLA allocates beyond arguments and results; that total is what libtpu holds against the chip's
    memory. ``temp_size_in_bytes`` is not (it adds scratch space that overlaps).
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
    """Bytes that were needed and that there are, of a compiler's error; None if it is about something else."""
    if "RESOURCE_EXHAUSTED" not in message or "hbm" not in message.lower():
        return None
    for pattern in _OUT_OF_MEMORY:
        match = pattern.search(message)
        if match:
            needed, unit, available, other = match.groups()
            return round(float(needed) * _UNITS.get(unit, 1)), round(float(available) * _UNITS.get(other, 1))
    return None
