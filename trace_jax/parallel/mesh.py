"""The device mesh: axes ``data, fsdp, tensor, expert``, the same four for one CPU, a GPU box and several TPU slices."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from trace_jax.errors import UserError

AXES = ("data", "fsdp", "tensor", "expert")
BATCH_AXES = ("data", "fsdp", "expert")  # rows of a batch are split over these; tensor splits heads and widths


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1: as many as are left. The default is pure data parallelism."""

    data: int = -1
    fsdp: int = 1  # splits the frozen weights' width; they are gathered layer by layer
    tensor: int = 1  # splits heads, feed-forward width and vocabulary
    expert: int = 1  # splits the experts; a batch axis for everything else

    def __post_init__(self) -> None:
        sizes = astuple(self)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(f"mesh {self}: axes must be positive, and at most one -1 (as many as are left)")

    def resolve(self, devices: int) -> "MeshConfig":
        """The mesh of all ``devices`` devices. Raises UserError when they cannot be laid out so."""
        given = math.prod(size for size in astuple(self) if size != -1)
        if devices % given or (-1 not in astuple(self) and devices != given):
            raise UserError(
                f"mesh {self} takes {'a multiple of ' if -1 in astuple(self) else ''}{given} devices, there are "
                f"{devices}: choose axes whose product is {devices}, or set one of them to -1"
            )
        return MeshConfig(**{f.name: devices // given if getattr(self, f.name) == -1 else getattr(self, f.name)
                             for f in fields(self)})  # fmt: skip

    def __str__(self) -> str:
        return "×".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self))


def make_mesh(config: MeshConfig = MeshConfig(), devices: Sequence[Any] | None = None) -> Mesh:  # noqa: B008 (frozen)
    """A mesh over ``devices`` (all by default), neighbours on the network next to each other.

    Several TPU slices are split along ``data``, whose traffic (gradients of adapters, once a step) is the least.

    Raises:
        UserError: the axes do not fit the number of devices, or ``data`` that of the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.resolve(len(devices))
    shape = astuple(sizes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1:
        if sizes.data % slices:
            raise UserError(f"mesh {sizes} on {slices} slices: data must be a multiple of {slices}")
        inner = (sizes.data // slices, *shape[1:])
        grid = mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1, 1), devices, allow_split_physical_axes=True)
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)
