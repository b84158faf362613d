"""Communication inside a ``jax.shard_map``; on its own, outside of one, every function returns what it was given.

So a layer is written once and runs unsharded in an engine and sharded in a trainer. The types of values say over which
axes they vary (``check_vma``); JAX derives from them which gradients have to be summed.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax

Tree = TypeVar("Tree")


def manual_axes(axes: Sequence[str]) -> tuple[str, ...]:
    """Those of ``axes`` over which the calling code is a shard_map's body."""
    bound = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in axes if axis in bound)


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The axes over which the type of a value lets it vary."""
    return jax.typeof(x).manual_axis_type.varying


def axis_index(axis: str) -> jax.Array | int:
    """This device's place along ``axis``."""
    return jax.lax.axis_index(axis) if manual_axes([axis]) else 0


def axis_size(axis: str) -> int:
    """Devices along ``axis``."""
    return jax.sharding.get_abstract_mesh().shape[axis] if manual_axes([axis]) else 1


def reduce_sum(x: jax.Array, *axes: str) -> jax.Array:
    """The sum over devices, everywhere (all-reduce)."""
    bound = manual_axes(axes)
    return jax.lax.psum(x, bound) if bound else x


def reduce_max(x: jax.Array, *axes: str) -> jax.Array:
    """The maximum over devices, everywhere. It has no gradient."""
    bound = manual_axes(axes)
    return jax.lax.pmax(jax.lax.stop_gradient(x), bound) if bound else x


def gather(x: jax.Array, axis: str, dimension: int) -> jax.Array:
    """The parts of all devices joined along ``dimension`` (all-gather); its gradient is ``sum_scatter``."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.all_gather(x, axis, axis=dimension, tiled=True)


def sum_scatter(x: jax.Array, axis: str, dimension: int) -> jax.Array:
    """The sum over devices, each keeping its part of ``dimension`` (reduce-scatter)."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.psum_scatter(x, axis, scatter_dimension=dimension, tiled=True)


def exchange(x: jax.Array, axis: str, split: int, join: int) -> jax.Array:
    """Every device sends its parts along ``split`` and joins what it gets along ``join`` (all-to-all)."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.all_to_all(x, axis, split, join, tiled=True)


def vary(tree: Tree, axes: Sequence[str]) -> Tree:
    """The same values, typed as varying over ``axes``: their gradients then stay local, to be summed by hand."""

    def vary_array(x: jax.Array) -> jax.Array:
        missing = tuple(axis for axis in manual_axes(axes) if axis not in varying_axes(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary_array, tree)
