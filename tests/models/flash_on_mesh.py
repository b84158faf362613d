"""Layers of attention over a mesh of four devices, run as a program of its own: ``types``, ``values`` or ``compile``.

Neither interpreter of Pallas runs where ``shard_map`` checks which values vary (a step's primitives mix operands that
vary with constants of the interpreter which do not), so the check and the values are two programs.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from packed_rows import packed_ids, plain_attention, random_qkv

from trace_jax.models.flash import flash_attention

HEADS, IDS = P("data", None, "tensor"), P("data")


def layers_and_gradients(mesh, keys: P, check_vma: bool, attention):
    """Two scanned, rematerialised layers on local shapes; outputs and the gradients of q, k and v."""

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(HEADS, keys, keys, HEADS, IDS, IDS),
        out_specs=(HEADS, HEADS, keys, keys),
        check_vma=check_vma,
    )
    def run(q, k, v, dout, segment, parent):
        def layers(q, k, v):
            layer = jax.checkpoint(lambda x, _: (x + attention(x, k, v, segment, parent), None))
            return jax.lax.scan(layer, q, None, length=2)[0]

        out, vjp = jax.vjp(layers, q, k, v)
        return out, *vjp(dout)

    return run


def structs(mesh, keys: P, T: int, N: int, K: int, H: int, dtype):
    """Arguments of ``layers_and_gradients`` without values."""
    q, k, ids = (
        jax.ShapeDtypeStruct(shape, kind, sharding=NamedSharding(mesh, spec))
        for shape, kind, spec in [((4, T, N, H), dtype, HEADS), ((4, T, K, H), dtype, keys), ((4, T), jnp.int32, IDS)]
    )
    return q, k, k, q, ids, ids


def types() -> None:
    """Trace and lower for TPUs with every type checked: keys split like the queries, and one key head for all."""
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    for K, keys in [(2, HEADS), (1, IDS)]:
        run = layers_and_gradients(mesh, keys, True, flash_attention)
        traced = jax.jit(run).trace(*structs(mesh, keys, 256, 4, K, 64, jnp.float32))
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        for kernel in ("flash_forward", "flash_backward_q", "flash_backward_kv"):
            assert kernel in text, kernel


def values() -> None:
    """Interpreted on the mesh and plain attention on one device: the greatest difference over the greatest value."""
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    random = np.random.default_rng()
    segment, parent, _ = packed_ids(random, 4, 160)
    q, k, v, dout = random_qkv(random, 4, 160, 4, 2, 64)
    dout *= (segment > 0)[:, :, None, None]
    run = layers_and_gradients(mesh, HEADS, False, partial(flash_attention, interpret=True))
    ours = jax.jit(run)(q, k, v, dout, segment, parent)
    one = jax.make_mesh((1, 1), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    plain = jax.jit(layers_and_gradients(one, HEADS, True, plain_attention))(q, k, v, dout, segment, parent)
    real = np.asarray(segment > 0)
    for x, y in zip(ours, plain, strict=True):
        # Plain attention lets padding see padding.
        x, y = np.asarray(x)[real], np.asarray(y)[real]
        assert np.abs(x - y).max() <= 2e-5 * np.abs(y).max(), np.abs(x - y).max()


def compile_for_tpu(topology: str) -> None:
    """The whole of it, types checked, through the TPU compiler: one row of 2,048 a device, 16 of 32 heads."""
    from jax.experimental.topologies import get_topology_desc

    devices = get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = jax.sharding.Mesh(np.array(devices[:4]).reshape(2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    run = layers_and_gradients(mesh, HEADS, True, flash_attention)
    text = jax.jit(run).lower(*structs(mesh, HEADS, 2048, 32, 4, 128, jnp.bfloat16)).compile().as_text()
    # Layers are scanned: the forward kernel is there twice, in the forward scan and rematerialised in the backward one.
    assert text.count('custom_call_target="tpu_custom_call"') == 4, text.count("tpu_custom_call")


if __name__ == "__main__":
    {"types": types, "values": values, "compile": lambda: compile_for_tpu("v5e:2x2")}[sys.argv[1]]()
