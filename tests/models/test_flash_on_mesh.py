"""The attention kernels inside ``shard_map`` on four devices, and through the TPU's own compiler without a TPU.

Neither interpreter of Pallas runs where ``shard_map`` checks which values vary (a step's primitives mix operands that
vary with constants of the interpreter which do not), so the types and the values are two tests.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from packed_rows import packed_ids, plain_attention, random_qkv

from trace_jax.models.kernels.flash import flash_attention
from trace_jax.planning.devices import describe_devices
from trace_jax.planning.topology import parse_topology

HEADS, IDS = P("data", None, "tensor"), P("data")


def _mesh(devices, *shape: int) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(devices).reshape(shape), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)


def _layers(mesh, keys: P, check_vma: bool, attention):
    """Two scanned layers that keep what attention names; their output and the gradients of q, k and v."""

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(HEADS, keys, keys, HEADS, IDS, IDS),
        out_specs=(HEADS, HEADS, keys, keys),
        check_vma=check_vma,
    )
    def run(q, k, v, dout, segment, parent):
        def layers(q, k, v):
            policy = jax.checkpoint_policies.save_only_these_names("attention")
            step = jax.checkpoint(lambda x, _: (x + attention(x, k, v, segment, parent), None), policy=policy)
            return jax.lax.scan(step, q, None, length=2)[0]

        out, vjp = jax.vjp(layers, q, k, v)
        return out, *vjp(dout)

    return jax.jit(run)


def _structs(mesh, keys: P, T: int, N: int, K: int, H: int, dtype):
    """Arguments of ``_layers`` without values."""

    def struct(shape, kind, spec):
        return jax.ShapeDtypeStruct(shape, kind, sharding=NamedSharding(mesh, spec))

    q, k = struct((4, T, N, H), dtype, HEADS), struct((4, T, K, H), dtype, keys)
    ids = struct((4, T), jnp.int32, IDS)
    return q, k, k, q, ids, ids


@pytest.mark.parametrize(("K", "keys"), [(2, HEADS), (1, IDS)])
def test_lowers_for_tpus_with_varying_axes_checked(K, keys):
    """Key heads split like the query heads, and one key head for all: its gradient is summed over the mesh axis."""
    mesh = _mesh(jax.devices()[:4], 2, 2)
    traced = _layers(mesh, keys, True, flash_attention).trace(*_structs(mesh, keys, 256, 4, K, 64, jnp.float32))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    for kernel in ("flash_forward", "flash_backward_q", "flash_backward_kv"):
        assert kernel in text


def test_sharded_equals_plain_attention_on_one_device(rng):
    segment, parent, _ = packed_ids(rng, 4, 160)
    q, k, v, dout = random_qkv(rng, 4, 160, 4, 2, 64)
    dout *= (segment > 0)[:, :, None, None]
    kernels = _layers(_mesh(jax.devices()[:4], 2, 2), HEADS, False, partial(flash_attention, interpret=True))
    plain = _layers(_mesh(jax.devices()[:1], 1, 1), HEADS, True, plain_attention)
    arguments = jax.tree.map(np.asarray, (q, k, v, dout, segment, parent))
    real = np.asarray(segment > 0)  # plain attention lets padding see padding
    for ours, theirs in zip(kernels(*arguments), plain(*arguments), strict=True):
        theirs = np.asarray(theirs)[real]
        np.testing.assert_allclose(np.asarray(ours)[real], theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_compiles_for_a_tpu():
    """Rows of 2,048 tokens and 32 heads of width 128 on v5e. Layers are scanned and attention is kept: one forward
    kernel and two for the gradients are all."""
    pytest.importorskip("libtpu", reason="libtpu is not installed: pip install 'jax[tpu]'")
    mesh = _mesh(describe_devices(parse_topology("v5e:2x2")), 2, 2)
    lowered = _layers(mesh, HEADS, True, flash_attention).lower(*_structs(mesh, HEADS, 2048, 32, 4, 128, jnp.bfloat16))
    assert lowered.compile().as_text().count('custom_call_target="tpu_custom_call"') == 3
