"""``--topology``: which chips, in which shape, in how many slices.

    v5p:4x4x4      64 chips of a TPU v5p in a cube            2*v5p:4x4x4    two slices of it
    v5e:4x4        16 chips of a TPU v5e                      h100:8         one box of 8 GPUs; 2*h100:8 is two boxes
    v5p-64         Google's name, which counts TensorCores: 32 chips, 2x4x4

Names of Google's slices are resolved to the shape that is offered under them.
"""

import math
import re
from dataclasses import dataclass

from trace_jax.errors import UserError
from trace_jax.planning.chips import Chip, find_chip

_SHAPE = re.compile(r"(?:(\d+)\*)?([a-z0-9]+):(\d+(?:x\d+)*)")
_NAME = re.compile(r"(?:(\d+)\*)?([a-z0-9]+)-(\d+)")

# Slice shapes that Google Cloud offers under each name (cloud.google.com/tpu/docs/{v5e,v5p,v6e}, "configurations");
# the number of v5p counts TensorCores, two a chip.
_OFFERED = {
    "v5e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v6e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v5p": {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8", 1024: "8x8x8"},
}
_SPELLINGS = {"v5litepod": "v5e", "v7x": "tpu7x", "tpu7": "tpu7x", "ironwood": "tpu7x", "trillium": "v6e"}
_GPUS_A_NODE = 8


@dataclass(frozen=True)
class Topology:
    """``shape`` is that of one slice (a TPU slice, or one box of GPUs); the network joins ``slices`` of them."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """The spelling that ``parse_topology`` reads."""
        prefix = f"{self.slices}*" if self.slices > 1 else ""
        return f"{prefix}{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Chips in all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices in all slices: what a mesh is made of."""
        return self.chips * self.chip.devices


def parse_topology(text: str) -> Topology:
    """The topology that ``text`` names. Raises UserError, with the spelling to use, for what there is not."""
    named = _NAME.fullmatch(text.strip().lower())
    if named:
        return _offered(text, *named.groups())
    match = _SHAPE.fullmatch(text.strip().lower())
    if not match:
        raise UserError(f"topology {text!r}: write chip:shape, as in v5p:4x4x4, v5e:4x4, 2*v6e:8x8 or h100:8")
    slices, name, shape = match.groups()
    chip = find_chip(_SPELLINGS.get(name, name))
    return _checked(text, Topology(chip, tuple(map(int, shape.split("x"))), int(slices or 1)))


def _offered(text: str, slices: str | None, name: str, number: str) -> Topology:
    chip = find_chip(_SPELLINGS.get(name, name))
    shapes = _OFFERED.get(chip.name)
    if shapes is None:
        raise UserError(f"topology {text!r}: {chip.name} has no such name; write its shape, as in {_example(chip)}")
    if int(number) not in shapes:
        counted = "TensorCores, two a chip" if chip.name == "v5p" else "chips"
        raise UserError(
            f"topology {text!r}: {chip.name}-N counts {counted}, N one of {', '.join(map(str, shapes))}; "
            f"or write the shape, as in {_example(chip)}"
        )
    return Topology(chip, tuple(map(int, shapes[int(number)].split("x"))), int(slices or 1))


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
            + (f"; {chip.name}-{shape[0]} is Google's name for a slice" if len(shape) == 1 else "")
        )
    return topology


def _example(chip: Chip) -> str:
    return {2: f"{chip.name}:4x4", 3: f"{chip.name}:4x4x4"}.get(chip.rank, f"{chip.name}:8")
