"""The device mesh. It always has the axes ``data, fsdp, tensor, expert``, on one CPU as on several TPU slices."""

import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from trace_jax.errors import UserError
from trace_jax.parallel.settings import MeshSettings

AXES = ("data", "fsdp", "tensor", "expert")
BATCH_AXES = ("data", "fsdp", "expert")  # rows of a batch are split over these; tensor splits heads and widths


def make_mesh(config: MeshSettings = MeshSettings(), devices: Sequence[Any] | None = None) -> Mesh:  # noqa: B008 (frozen)
    """A mesh over ``devices`` (all by default). Neighbours in the mesh are neighbours on the network.

    Several TPU slices are split along ``data``. This axis has the least traffic: the gradients of adapters, once a
    step.

    Raises:
        UserError: the axes do not fit the number of devices, or ``data`` is no multiple of the number of slices.
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
    """The number of parts into which the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)
