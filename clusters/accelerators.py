"""What the clouds call their accelerators, and which machines a TPU slice consists of.

Sources: the GKE page "Plan TPUs" (labels, machine sizes, topologies), the Cloud TPU pages of each generation (names,
runtime versions) and the GKE page "GPU machine types".
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import prod

from trace_jax.errors import UserError

_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")  # below 64 chips; larger ones are made of 4x4x4
_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")


@dataclass(frozen=True)
class Tpu:
    """One TPU generation."""

    gke: str  # value of cloud.google.com/gke-tpu-accelerator
    cloud: str  # prefix of the Cloud TPU type
    axes: int  # of the topology
    units_per_chip: int  # in the Cloud TPU type: v5p counts cores, v6e chips
    devices_per_chip: int  # that JAX sees
    runtime: str  # Cloud TPU VM software version; empty where there are no such VMs

    def chips(self, topology: str) -> int:
        """Chips of a slice. Raises UserError for a topology that does not exist."""
        sides = tuple(int(side) for side in topology.split("x") if side.isdecimal())
        if "x".join(map(str, sides)) != topology or not self._exists(topology, sides):
            known = _SQUARES if self.axes == 2 else (*_SMALL_CUBES, "4x4x4, 4x4x8 and other multiples of 4 ascending")
            raise UserError(f"trainer.topology {topology!r}: not a topology of {self.cloud}; use {', '.join(known)}")
        return prod(sides)

    def _exists(self, topology: str, sides: tuple[int, ...]) -> bool:
        if self.axes == 2:
            return topology in _SQUARES
        cube = len(sides) == 3 and all(side and side % 4 == 0 for side in sides) and sides == tuple(sorted(sides))
        return topology in _SMALL_CUBES or cube

    def chips_per_host(self, topology: str) -> tuple[int, ...]:
        """The machine sizes that a slice of this topology can consist of, in chips."""
        return {"1x1": (1,), "2x4": (4, 8)}.get(topology, (4,))

    def cloud_type(self, topology: str) -> str:
        """Name of the slice at Cloud TPU, XPK and SkyPilot, for instance v6e-64 or v5p-128 (both 64 chips)."""
        return f"{self.cloud}-{self.chips(topology) * self.units_per_chip}"

    def named_by_chips(self, topology: str) -> bool:
        """True if ``cloud_type`` means this topology: of several with as many chips it is the most compact."""
        chips = self.chips(topology)
        if self.axes == 2 or chips < 64:
            return True
        sides = [side for side in range(4, chips + 1, 4) if chips % side == 0]
        same = [cube for cube in combinations_with_replacement(sides, 3) if prod(cube) == chips]
        return topology == "x".join(map(str, min(same, key=sum)))


TPUS = {
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 2, 1, 1, "v2-alpha-tpuv5-lite"),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 3, 2, 1, "v2-alpha-tpuv5"),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 2, 1, 1, "v2-alpha-tpuv6e"),
    "tpu7x": Tpu("tpu7x", "tpu7x", 3, 2, 2, ""),
}

# SkyPilot's name of a GPU → value of cloud.google.com/gke-accelerator.
GPUS = {
    "A100-80GB": "nvidia-a100-80gb",
    "H100": "nvidia-h100-80gb",
    "H200": "nvidia-h200-141gb",
    "B200": "nvidia-b200",
}
