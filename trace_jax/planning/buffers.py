"""The largest buffers of a program at its memory peak, from the files that XLA writes (``xla_dump_to``).

XLA writes these files before it finds that a program does not fit, so they also exist for programs that are too large.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trace_jax.planning.hlo import Instruction, Module, parse_module
from trace_jax.planning.shapes import Array, Shape

_LIVE = re.compile(r"\s+(\S+)\{([\d,]*)\}: (\d+) bytes")


@dataclass(frozen=True)
class Buffer:
    """One array in memory, with the operation and the source line that made it."""

    bytes: int
    shape: str
    op_name: str
    source: str


def largest_buffers(directory: Path, number: int) -> tuple[Buffer, ...]:
    """Up to ``number`` buffers that are alive at the peak, largest first; empty if XLA wrote nothing about them.

    ``directory`` holds the text dump of one program.
    """
    programs = _written(directory, "after_optimizations.txt")
    ranges = _written(directory, "after_optimizations-live-range.txt")
    if not programs or not ranges:
        return ()
    module = parse_module(programs[-1].read_text())
    instructions = {
        name: instruction
        for computation in module.computations.values()
        for name, instruction in computation.instructions.items()
    }
    found = []
    for name, index, size in _at_peak(ranges[-1].read_text().splitlines()):
        instruction = instructions.get(name)
        array = _element(instruction.shape, index) if instruction is not None else None
        if instruction is None or array is None or array.space:
            continue  # the table of a tuple, or not in main memory
        maker = _maker(module, instruction, index)
        found.append(Buffer(size, str(array), maker.op_name, module.source(maker)))
    return tuple(sorted(found, key=lambda buffer: -buffer.bytes)[:number])


def _written(directory: Path, ending: str) -> list[Path]:
    return sorted(path for path in directory.glob("*.txt") if path.name.endswith(ending))


def _at_peak(lines: Iterable[str]) -> list[tuple[str, tuple[int, ...], int]]:
    """Instruction, index into its tuple, and bytes of every buffer at the peak."""
    found, inside = [], False
    for line in lines:
        if line.strip().startswith("Live ranges at"):
            inside = True
        elif inside:
            match = _LIVE.match(line)
            if not match:
                break
            name, index, size = match.groups()
            found.append((name, tuple(int(n) for n in index.split(",") if n), int(size)))
    return found


def _element(shape: Shape, index: tuple[int, ...]) -> Array | None:
    for place in index:
        if isinstance(shape, Array) or place >= len(shape):
            return None
        shape = shape[place]
    return shape if isinstance(shape, Array) else None


def _maker(module: Module, instruction: Instruction, index: tuple[int, ...]) -> Instruction:
    """The instruction that made a buffer. For a buffer of a loop's state it is in the loop's body."""
    if instruction.opcode != "while" or len(index) != 1:
        return instruction
    body = module.computations[instruction.attribute("body") or ""]
    if body.root.opcode != "tuple":
        return instruction
    written = body.operand(body.root, index[0])
    return written if written.op_name and written.opcode != "get-tuple-element" else instruction
