"""``--topology``: the kind of chip, the shape of a slice, and the number of slices.

v5p:4x4x4      64 chips of a TPU v5p in a cube            2*v5p:4x4x4    two slices of it
v5e:4x4        16 chips of a TPU v5e                      h100:8         one box of 8 GPUs; 2*h100:8 is two boxes
v5p-64         Google's name, which counts TensorCores: 32 chips, v5p:2x4x4 (``slices`` knows the names)
"""

import math
import re
from dataclasses import dataclass

from trace_jax.errors import UserError
from trace_jax.planning.chips import Chip, find_chip
from trace_jax.planning.slices import named_shape, slice_number, some_shapes, spelled

_SHAPE = re.compile(r"(?:(\d{1,6})\*)?([a-z0-9]+):(\d{1,6}(?:x\d{1,6})*)")
_NAME = re.compile(r"(?:(\d{1,6})\*)?([a-z0-9]+)-(\d{1,6})")

_SPELLINGS = {"v5litepod": "v5e", "v7x": "tpu7x", "tpu7": "tpu7x", "ironwood": "tpu7x", "trillium": "v6e"}
_GPUS_A_NODE = 8
_EXAMPLES = {0: (8,), 2: (4, 4), 3: (4, 4, 4)}  # by the number of axes


@dataclass(frozen=True)
class Topology:
    """Chips in ``slices`` slices of one ``shape``. A slice is a TPU slice or one box of GPUs; a network joins them."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """The spelling that ``parse_topology`` reads."""
        prefix = f"{self.slices}*" if self.slices > 1 else ""
        return f"{prefix}{self.chip.name}:{spelled(self.shape)}"

    @property
    def chips(self) -> int:
        """Chips in all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices in all slices; a mesh consists of them."""
        return self.chips * self.chip.devices


def parse_topology(text: str) -> Topology:
    """The topology that ``text`` names. Raises UserError, with the spelling to use, if there is no such topology."""
    named = _NAME.fullmatch(text.strip().lower())
    if named:
        return _named(text, *named.groups())
    match = _SHAPE.fullmatch(text.strip().lower())
    if not match:
        raise UserError(f"topology {text!r}: write chip:shape, as in v5p:4x4x4, v5e:4x4, 2*v6e:8x8 or h100:8")
    slices, name, shape = match.groups()
    chip = find_chip(_SPELLINGS.get(name, name))
    return _checked(text, Topology(chip, tuple(map(int, shape.split("x"))), int(slices or 1)))


def _named(text: str, slices: str | None, name: str, number: str) -> Topology:
    chip = find_chip(_SPELLINGS.get(name, name))
    if chip.rank == 0:
        raise UserError(f"topology {text!r}: {chip.name} has no such name; write its shape, as in {_example(chip)}")
    shape = named_shape(chip, int(number))
    if shape is None:
        counts = "chips" if chip.counted == 1 else "TensorCores, two a chip"
        raise UserError(
            f"topology {text!r}: no slice has this name; {chip.name}-N counts {counts}, and {_example(chip)} is "
            f"{chip.name}-{slice_number(chip, _EXAMPLES[chip.rank])}; write the shape, one of {some_shapes(chip)}"
        )
    return Topology(chip, shape, int(slices or 1))


def _checked(text: str, topology: Topology) -> Topology:
    chip, shape = topology.chip, topology.shape
    if topology.slices < 1 or min(shape) < 1:
        raise UserError(f"topology {text!r}: every number is at least 1")
    if chip.rank == 0 and (len(shape) != 1 or shape[0] > _GPUS_A_NODE):
        raise UserError(
            f"topology {text!r}: one box has up to {_GPUS_A_NODE} GPUs; write two as 2*{chip.name}:{_GPUS_A_NODE}"
        )
    if chip.rank and len(shape) != chip.rank:
        raise UserError(
            f"topology {text!r}: {chip.name} has {chip.rank} axes, as in {_example(chip)}"
            + (_google_name(chip, shape[0]) if len(shape) == 1 else "")
        )
    return topology


def _google_name(chip: Chip, number: int) -> str:
    """The hint for a user who wrote ``v5p:64``, which looks like Google's name ``v5p-64``."""
    shape = named_shape(chip, number)
    return f"; {chip.name}-{number} is Google's name for {chip.name}:{spelled(shape)}" if shape else ""


def _example(chip: Chip) -> str:
    return f"{chip.name}:{spelled(_EXAMPLES[chip.rank])}"
