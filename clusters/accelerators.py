"""The clouds' names of accelerators, and the machines of a TPU slice.

``trace_jax.planning`` knows the chips and the shapes of slices. This module adds the names that GKE, Cloud TPU, XPK and
SkyPilot use. Sources: the GKE page "Plan TPUs" (labels, machine sizes), the Cloud TPU pages of each generation (names,
runtime versions), XPK's table of systems, and the GKE page "GPU machine types".
"""

import re
from dataclasses import dataclass
from math import prod

from trace_jax.errors import UserError
from trace_jax.planning.chips import CHIPS, Chip
from trace_jax.planning.slices import compact_shape, exists, named_shape, slice_number, some_shapes, spelled


@dataclass(frozen=True)
class Tpu:
    """One TPU generation. A ``topology`` is the shape of one slice, for instance ``4x4x4``."""

    chip: Chip
    gke: str  # value of cloud.google.com/gke-tpu-accelerator
    cloud: str  # prefix of the Cloud TPU type
    runtime: str  # Cloud TPU VM software version; empty if the generation has no such VMs

    def sides(self, topology: str) -> tuple[int, ...]:
        """Chips along each axis. Raises UserError, with the likely topology, for a topology that does not exist."""
        sides = tuple(map(int, topology.split("x"))) if re.fullmatch(r"[0-9]{1,5}(x[0-9]{1,5})*", topology) else ()
        if spelled(sides) == topology and exists(self.chip, sides):
            return sides
        named = re.fullmatch(rf"(?:tpu-)?(?:{self.chip.name}|{self.cloud})-(\d{{1,6}})", topology)
        if named and (meant := named_shape(self.chip, int(named.group(1)))):
            raise UserError(
                f"trainer.topology {topology!r} is the name of a slice with {prod(meant)} chips: write its shape, "
                f"{spelled(meant)}"
            )
        raise UserError(f"trainer.topology {topology!r}: not a topology of {self.cloud}; use {some_shapes(self.chip)}")

    def chips(self, topology: str) -> int:
        """Chips of one slice. Raises UserError for a topology that does not exist."""
        return prod(self.sides(topology))

    def chips_per_host(self, topology: str) -> tuple[int, ...]:
        """The possible machine sizes, in chips, of a slice of this topology."""
        return {"1x1": (1,), "2x4": (4, 8)}.get(topology, (4,))

    def cloud_type(self, topology: str) -> str:
        """Google's name of the slice, for instance v6e-64 (64 chips) or v5p-64 (64 TensorCores, 32 chips)."""
        return f"{self.cloud}-{slice_number(self.chip, self.sides(topology))}"

    def is_compact(self, topology: str) -> bool:
        """True if ``cloud_type`` means this topology, because it is the most compact one with its number of chips."""
        sides = self.sides(topology)
        return sides == compact_shape(self.chip, prod(sides))

    def xpk_type(self, topology: str) -> str:
        """XPK's name of the slice: Google's, or v5p-4x4x16 for a shape that Google's name does not mean."""
        return self.cloud_type(topology) if self.is_compact(topology) else f"{self.cloud}-{topology}"


TPUS = {
    "v5e": Tpu(CHIPS["v5e"], "tpu-v5-lite-podslice", "v5litepod", "v2-alpha-tpuv5-lite"),
    "v5p": Tpu(CHIPS["v5p"], "tpu-v5p-slice", "v5p", "v2-alpha-tpuv5"),
    "v6e": Tpu(CHIPS["v6e"], "tpu-v6e-slice", "v6e", "v2-alpha-tpuv6e"),
    "tpu7x": Tpu(CHIPS["tpu7x"], "tpu7x", "tpu7x", ""),
}

# SkyPilot's name of a GPU → value of cloud.google.com/gke-accelerator.
GPUS = {
    "A100-80GB": "nvidia-a100-80gb",
    "H100": "nvidia-h100-80gb",
    "H200": "nvidia-h200-141gb",
    "B200": "nvidia-b200",
}
