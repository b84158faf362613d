"""Reads the groups of devices of a collective, in each of the spellings that XLA prints.

``{{0,1},{2,3}}``; ``[2,2]<=[4]`` and ``[2,2]<=[2,2]T(1,0)`` (numbers in order, reshaped, transposed);
``mesh['data'=2,'fsdp'=4] {'fsdp'}`` (axes of a mesh); and the source and target pairs of a permutation. Devices are
numbered as in the program's mesh, row by row.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from trace_jax.errors import UserError
from trace_jax.planning.hlo import Instruction
from trace_jax.planning.shapes import split

Groups = tuple[tuple[int, ...], ...]

_GROUPS = re.compile(r"replica_groups=(mesh\[[^\]]*\] ?\{[^}]*\}|\[[^ ]*|\{(?:\{[\d,]*\},?)*\})")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\] ?\{([^}]*)\}")
_AXIS = re.compile(r"'([^']*)'(?::\((\d+)\)(\d+))?")


def device_groups(instruction: Instruction, partitions: int) -> Groups:
    """The groups of device numbers among which a collective exchanges data.

    A permutation gives one pair for each device that sends. Raises UserError for an unknown spelling.
    """
    pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]+\},?)*)\}", instruction.attributes)
    if pairs:
        return _listed(pairs.group(1))
    match = _GROUPS.search(instruction.attributes)
    if not match:
        raise UserError(f"{instruction.name}: its replica_groups are missing from {instruction.attributes[:80]!r}")
    text = match.group(1).rstrip(",")
    if text == "{}":
        return (tuple(range(partitions)),)
    if text.startswith("{"):
        return _listed(text[1:-1])
    iota = _IOTA.fullmatch(text)
    if iota:
        shape, base, order = ([int(n) for n in part.split(",")] if part else None for part in iota.groups())
        assert shape is not None and base is not None
        numbers = np.arange(math.prod(base)).reshape(base)
        return _rows(numbers.transpose(order).reshape(shape))
    mesh = _MESH.fullmatch(text)
    if mesh:
        return _along(*mesh.groups())
    raise UserError(f"{instruction.name}: replica_groups {text!r} are in an unknown spelling")


def axes_spanned(groups: Groups, axes: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The mesh axes along which the devices of some group differ. ``axes`` are names and sizes, in order."""
    sizes = [size for _, size in axes]
    varied: set[int] = set()
    for group in groups:
        places = np.stack(np.unravel_index(np.asarray(group), sizes), axis=-1)
        varied |= set(np.flatnonzero((places != places[0]).any(axis=0)).tolist())
    return tuple(name for number, (name, _) in enumerate(axes) if number in varied)


def _listed(text: str) -> Groups:
    return tuple(tuple(int(n) for n in part.split(",") if n) for part in re.findall(r"\{([\d,]*)\}", text))


def _along(mesh: str, chosen: str) -> Groups:
    """Groups along the axes ``chosen`` of ``mesh``. ``'x':(2)4`` is a part of axis x: 4 indices in each of 2 blocks."""
    axes = [(name.strip("'"), int(size)) for name, _, size in (part.partition("=") for part in split(mesh))]
    shape: list[int] = []  # three axes for every axis of the mesh: before, part, after
    taken: list[int] = []
    picked: dict[str, list[tuple[int, int] | None]] = {}
    for name, before, part in _AXIS.findall(chosen):
        picked.setdefault(name, []).append((int(before), int(part)) if part else None)
    for name, size in axes:
        parts = picked.get(name, [])
        if len(parts) > 1:
            raise UserError(f"replica_groups {chosen!r} name axis {name!r} twice: they are in an unknown spelling")
        before, chosen_part = parts[0] if parts and parts[0] is not None else (1, size)
        if parts:
            taken.append(len(shape) + 1)
        shape += [before, chosen_part, size // (before * chosen_part)]
    numbers = np.arange(math.prod(size for _, size in axes)).reshape(shape)
    rest = [axis for axis in range(len(shape)) if axis not in taken]
    return _rows(numbers.transpose(rest + taken).reshape(-1, math.prod(shape[axis] for axis in taken)))


def _rows(numbers: np.ndarray) -> Groups:
    return tuple(tuple(row) for row in numbers.tolist())
