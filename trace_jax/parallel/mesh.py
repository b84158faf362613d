"""The device mesh: axes ``data, fsdp, tensor, expert``, the same four for one CPU, a GPU box and several TPU slices."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, ClassVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from trace_jax.errors import UserError
from trace_jax.settings import Settings, setting

AXES = ("data", "fsdp", "tensor", "expert")
BATCH_AXES = ("data", "fsdp", "expert")  # rows of a batch are split over these; tensor splits heads and widths


@dataclass(frozen=True)
class MeshSettings(Settings):
    """Devices along each axis; at most one may be -1: as many as are left. The default is pure data parallelism."""

    section: ClassVar = "mesh"
    data: int = setting(-1, "devices along the axis that splits batches; -1: as many as are left")
    fsdp: int = setting(1, "devices along the axis that splits batches and the width of weights")
    tensor: int = setting(1, "devices along the axis that splits heads, feed-forward width and vocabulary")
    expert: int = setting(1, "devices along the axis that splits batches and experts")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = astuple(self)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(f"mesh {self}: axes must be positive, and at most one -1 (as many as are left)")

    def resolve(self, devices: int) -> "MeshSettings":
        """The mesh of all ``devices`` devices. Raises UserError when they cannot be laid out so."""
        given = math.prod(size for size in astuple(self) if size != -1)
        if devices % given or (-1 not in astuple(self) and devices != given):
            raise UserError(
                f"mesh {self} takes {'a multiple of ' if -1 in astuple(self) else ''}{given} devices, there are "
                f"{devices}: choose axes whose product is {devices}, or set one of them to -1"
            )
        return MeshSettings(**{f.name: devices // given if getattr(self, f.name) == -1 else getattr(self, f.name)
                             for f in fields(self)})  # fmt: skip

    def __str__(self) -> str:
        return "×".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self))


def make_mesh(config: MeshSettings = MeshSettings(), devices: Sequence[Any] | None = None) -> Mesh:  # noqa: B008 (frozen)
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
