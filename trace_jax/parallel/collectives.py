"""Collectives for the body of a ``jax.shard_map``. Outside of a shard_map every function returns its input.

A layer is therefore written once, and runs unsharded in an engine and sharded in a trainer. The type of a value names
the axes over which it varies (``check_vma``). From these types JAX derives which gradients it has to sum.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax

Tree = TypeVar("Tree")


def manual_axes(axes: Sequence[str]) -> tuple[str, ...]:
    """The ``axes`` that are manual here, because the calling code is the body of a shard_map over them."""
    bound = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in axes if axis in bound)


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The axes over which a value may vary, according to its type."""
    return jax.typeof(x).manual_axis_type.varying


def axis_index(axis: str) -> jax.Array | int:
    """This device's index along ``axis``; 0 outside of a shard_map."""
    return jax.lax.axis_index(axis) if manual_axes([axis]) else 0


def axis_size(axis: str) -> int:
    """The number of devices along ``axis``; 1 outside of a shard_map."""
    return jax.sharding.get_abstract_mesh().shape[axis] if manual_axes([axis]) else 1


def reduce_sum(x: jax.Array, *axes: str) -> jax.Array:
    """The sum over the devices along ``axes``, on all of them (all-reduce)."""
    bound = manual_axes(axes)
    return jax.lax.psum(x, bound) if bound else x


def reduce_max(x: jax.Array, *axes: str) -> jax.Array:
    """The maximum over the devices along ``axes``, on all of them. It has no gradient."""
    bound = manual_axes(axes)
    return jax.lax.pmax(jax.lax.stop_gradient(x), bound) if bound else x


def gather(x: jax.Array, axis: str, dimension: int) -> jax.Array:
    """The parts of all devices joined along ``dimension`` (all-gather); its gradient is ``sum_scatter``."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.all_gather(x, axis, axis=dimension, tiled=True)


def sum_scatter(x: jax.Array, axis: str, dimension: int) -> jax.Array:
    """The sum over devices; each device keeps its part of ``dimension`` (reduce-scatter)."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.psum_scatter(x, axis, scatter_dimension=dimension, tiled=True)


def exchange(x: jax.Array, axis: str, split: int, join: int) -> jax.Array:
    """Every device sends its parts along ``split`` and joins the received parts along ``join`` (all-to-all)."""
    if axis_size(axis) == 1:
        return vary(x, [axis])
    return jax.lax.all_to_all(x, axis, split, join, tiled=True)


def vary(tree: Tree, axes: Sequence[str]) -> Tree:
    """The same values, typed as varying over ``axes``. JAX then leaves their gradients local and does not sum them."""

    def vary_array(x: jax.Array) -> jax.Array:
        missing = tuple(axis for axis in manual_axes(axes) if axis not in varying_axes(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary_array, tree)
