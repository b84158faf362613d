"""Moves large arrays to devices block by block. The host holds a few blocks, never the whole array."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from trace_jax.errors import UserError

Index = tuple[slice, ...]


def stream(
    shape: tuple[int, ...],
    dtype: Any,
    read: Callable[[Index], np.ndarray],
    block_bytes: int,
    sharding: Sharding | None = None,
    transposed: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> jax.Array:
    """An array of ``shape`` and ``dtype`` with ``sharding``, whose parts come from ``read(index)``.

    Args:
        read: returns the part ``index`` of ``shape``. Each process reads the parts of its own devices; a part that
            several of them hold is read once. The sequence of blocks is the same on all processes.
        block_bytes: approximate size, in ``dtype``, of one block of all devices of this process together. The host
            holds up to four times as much at once.
        sharding: None puts the array on the default device, uncommitted.
        transposed: the parts that ``read`` returns have their last two axes swapped; the device swaps them back.
        progress: is called after each block with the fraction that is done.

    Raises:
        UserError: ``shape`` does not fit the sharding, or the sharding is of an unsupported type.
    """
    if not isinstance(sharding, NamedSharding | SingleDeviceSharding | None):
        raise UserError(f"sharding {sharding} is not supported: use a NamedSharding")
    try:
        if isinstance(sharding, NamedSharding):
            sharding.check_compatible_aval(shape)
        local = shape if sharding is None else sharding.shard_shape(shape)
    except ValueError as error:
        raise UserError(f"an array of shape {shape} cannot be split as {sharding}: {error}") from None
    devices = 1 if sharding is None else len(sharding.addressable_devices)
    size = _block_shape(local, np.dtype(dtype).itemsize, block_bytes // devices, transposed)
    starts = list(_starts(local, size))
    write = _writer(sharding, transposed)
    array = jnp.zeros(shape, dtype, device=sharding)
    for number, start in enumerate(starts, start=1):
        block = _block(shape, local, start, size, read, sharding, transposed)
        array = write(array, block, np.asarray(start, np.int32))
        del block
        array.block_until_ready()  # else blocks pile up on the host
        progress(number / len(starts))
    return array


def _block_shape(local: tuple[int, ...], itemsize: int, budget: int, transposed: bool) -> tuple[int, ...]:
    """The shape of the part of each device's shard that is written at once.

    It has about ``budget`` bytes and consists of whole rows of the stored array.
    """
    size, last = list(local), len(local) - 1
    for axis in [*range(last - 1), last] if transposed else range(last):
        rest = math.prod(size) * itemsize // size[axis]
        parts = -(-size[axis] // max(budget // rest, 1))
        size[axis] = -(-size[axis] // parts)
    return tuple(size)


def _starts(local: tuple[int, ...], size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where each block starts in a device's shard. The last block along an axis ends with the axis."""
    axes = [
        [min(start, whole - part) for start in range(0, whole, part)] for whole, part in zip(local, size, strict=True)
    ]
    return itertools.product(*axes)


def _block(
    shape: tuple[int, ...],
    local: tuple[int, ...],
    start: tuple[int, ...],
    size: tuple[int, ...],
    read: Callable[[Index], np.ndarray],
    sharding: NamedSharding | SingleDeviceSharding | None,
    transposed: bool,
) -> jax.Array:
    """The blocks at ``start`` of all devices' shards, as one array with the sharding of the whole array."""

    def at(origin: tuple[int, ...]) -> np.ndarray:
        corner = [first + offset for first, offset in zip(origin, start, strict=True)]
        return read(tuple(slice(first, first + part) for first, part in zip(corner, size, strict=True)))

    if sharding is None:
        return jnp.asarray(at((0,) * len(shape)))
    parts: dict[tuple[int, ...], np.ndarray] = {}
    arrays = []
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        assert index is not None
        origin = tuple(axis.start or 0 for axis in index)
        if origin not in parts:
            parts[origin] = at(origin)
        arrays.append(jax.device_put(parts[origin], device))
    whole = tuple(part * (all_ // share) for part, all_, share in zip(size, shape, local, strict=True))
    return jax.make_array_from_single_device_arrays(
        _swapped(whole) if transposed else whole, _stored(sharding, len(shape), transposed), arrays
    )


@cache
def _writer(
    sharding: NamedSharding | SingleDeviceSharding | None, transposed: bool
) -> Callable[[jax.Array, jax.Array, np.ndarray], jax.Array]:
    """A function that writes a block into an array in place; each device writes into its own shard."""

    def write(array: jax.Array, block: jax.Array, start: jax.Array) -> jax.Array:
        block = (block.swapaxes(-1, -2) if transposed else block).astype(array.dtype)
        return jax.lax.dynamic_update_slice(array, block, list(start))

    @partial(jax.jit, donate_argnums=0)
    def sharded(array: jax.Array, block: jax.Array, start: jax.Array) -> jax.Array:
        if not isinstance(sharding, NamedSharding):
            return write(array, block, start)
        stored = _stored(sharding, array.ndim, transposed)
        specs = (sharding.spec, stored.spec, PartitionSpec())
        return jax.shard_map(write, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec)(array, block, start)

    return sharded


def _stored(sharding: Any, ndim: int, transposed: bool) -> Any:
    """The sharding of blocks before their axes are swapped."""
    if not transposed or not isinstance(sharding, NamedSharding):
        return sharding
    axes = (*sharding.spec, *(None,) * (ndim - len(sharding.spec)))
    return NamedSharding(sharding.mesh, PartitionSpec(*_swapped(axes)), memory_kind=sharding.memory_kind)


def _swapped(axes: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*axes[:-2], axes[-1], axes[-2])
