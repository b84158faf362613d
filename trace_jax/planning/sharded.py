"""Shapes with shardings over a mesh, which are the arguments of planned programs."""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any


def with_shardings(mesh: Mesh, tree: Tree, specs: Tree) -> Tree:
    """A tree of shapes as ``jax.ShapeDtypeStruct`` with shardings; ``specs`` may be a prefix of the tree."""

    def add(spec: P, part: Tree) -> Tree:
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part)

    return jax.tree.map(add, specs, tree, is_leaf=lambda node: isinstance(node, P))


def sharded_bytes(arguments: Tree) -> int:
    """Bytes of one device's shards of a tree of ``jax.ShapeDtypeStruct`` with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments)
    )
