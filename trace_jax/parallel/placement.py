"""Moves arrays between hosts and meshes, for one process and for many."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any


def to_mesh(tree: Tree, mesh: Mesh, spec: P) -> Tree:
    """A tree of host arrays as arrays on ``mesh``, sharded by ``spec``. Every process holds the whole host arrays."""
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), tree)


def to_host(tree: Tree) -> Tree:
    """A tree of arrays with any sharding as whole numpy arrays, on every process. All processes must call it."""

    def whole(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(whole, tree)
