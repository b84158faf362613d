"""A program whose collectives, FLOPs and memory follow from its sizes: scanned layers whose weights lie over fsdp."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trace_jax.planning.compile import Job, Program
from trace_jax.planning.devices import describe_devices
from trace_jax.planning.topology import Topology, parse_topology

AXES = ("data", "fsdp", "tensor", "expert")


@dataclass(frozen=True)
class Sizes:
    """Rows B a device, width D, feed-forward width F, layers L."""

    B: int = 256
    D: int = 256
    F: int = 512
    L: int = 3


def make_mesh(topology: Topology, shape: tuple[int, ...]) -> jax.sharding.Mesh:
    """A mesh over the topology's devices in their order."""
    return jax.sharding.Mesh(np.array(describe_devices(topology)).reshape(shape), AXES)


def mlp_job(topology: Topology, shape: tuple[int, int, int, int], sizes: Sizes) -> Job:
    """Loss and gradients of ``x + silu(x @ up) @ down``, L times.

    Weights are gathered over fsdp in the forward and once more in the backward pass, their gradients scattered; the
    feed-forward width lies over tensor.
    """
    mesh = make_mesh(topology, shape)
    rows, up, down = P(("data", "fsdp")), P(None, "fsdp", "tensor"), P(None, ("tensor", "fsdp"))

    def layer(x, weights):
        wide = jax.lax.all_gather(weights[0], "fsdp", axis=0, tiled=True)
        narrow = jax.lax.all_gather(weights[1], "fsdp", axis=0, tiled=True)
        return x + jax.lax.psum(jax.nn.silu(x @ wide) @ narrow, "tensor"), None

    def loss(weights, x):
        y, _ = jax.lax.scan(jax.checkpoint(layer), x, weights)
        return jax.lax.psum(jnp.sum(y.astype(jnp.float32) ** 2), ("data", "fsdp"))

    step = jax.shard_map(
        jax.value_and_grad(loss), mesh=mesh, in_specs=((up, down), rows), out_specs=(P(), (up, down)), check_vma=True
    )

    def struct(dims: tuple[int, ...], spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, jnp.bfloat16, sharding=NamedSharding(mesh, spec))

    B, D, F, L = sizes.B, sizes.D, sizes.F, sizes.L
    tokens = B * shape[0] * shape[1]
    arguments = ((struct((L, D, F), up), struct((L, F, D), down)), struct((tokens, D), rows))
    program = Program("mlp", jax.jit(step), arguments, mesh)
    return Job((program,), tokens=tokens, model_flops=6.0 * tokens * 2 * D * F * L)


def stand_in(config, topology: Topology) -> Job:
    """What ``launch.plan --programs=yardstick:stand_in`` calls; ``config.seed`` times 4096 rows a device."""
    return mlp_job(topology, (1, topology.devices, 1, 1), Sizes(B=4096 * max(1, config.seed), D=512, F=1024))


def single(function, shapes, topology_name: str = "v5e:2x2", dtype=jnp.bfloat16, **settings) -> tuple[Job, Topology]:
    """A job of one program that every device runs on whole arrays, inside a shard_map."""
    topology = parse_topology(topology_name)
    mesh = make_mesh(topology, (1, topology.devices, 1, 1))
    whole = NamedSharding(mesh, P())
    jitted = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    arguments = tuple(jax.ShapeDtypeStruct(shape, dtype, sharding=whole) for shape in shapes)
    return Job((Program("single", jitted, arguments, mesh, **settings),)), topology
