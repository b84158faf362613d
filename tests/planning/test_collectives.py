"""Collectives found in programs for eight host devices, and in the text that a GPU's compiler writes."""

import os
import subprocess
import sys
import textwrap

import pytest

from trace_jax.errors import UserError
from trace_jax.planning.collectives import find_collectives
from trace_jax.planning.execution import execute
from trace_jax.planning.hlo import parse_module

AXES = (("data", 2), ("fsdp", 2), ("tensor", 2))
ROWS, LAYERS = 24, 5
SIZE = 4 * ROWS * 16  # bytes of what each device holds

PROGRAM = f"""
    import jax, jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec as P

    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)

    def layer(x, _):
        x = jax.lax.psum(jnp.sin(x), "fsdp")
        x = jax.lax.psum_scatter(jax.lax.all_gather(jnp.cos(x), "data", tiled=True), "data", tiled=True)
        x = jax.lax.ppermute(jnp.sin(x), "tensor", [(0, 1), (1, 0)])
        return jax.lax.all_to_all(jnp.cos(x), ("data", "tensor"), 0, 0, tiled=True), None

    def step(x):
        x, _ = jax.lax.scan(layer, x, None, length={LAYERS})
        return jax.lax.psum(jnp.sum(x), ("data", "fsdp", "tensor"))

    whole = jax.ShapeDtypeStruct(({ROWS}, 16), jnp.float32, sharding=NamedSharding(mesh, P()))
    step = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    print(step.lower(whole).compile().as_text())
"""

# As the CUDA compiler of XLA writes them, shortened.
GPU = """HloModule jit_mlp, is_scheduled=true, num_partitions=8

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%a, %b), metadata={op_name="checkpoint/reduce_scatter"}
}

%body (state: (s32[], bf16[256,64], bf16[2048,64])) -> (s32[], bf16[256,64], bf16[2048,64]) {
  %state = (s32[], bf16[256,64]{1,0}, bf16[2048,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %w = bf16[256,64]{1,0} get-tuple-element(%state), index=1
  %g = bf16[2048,64]{1,0} get-tuple-element(%state), index=2
  %gather = ((bf16[256,64]{1,0}), bf16[2048,64]{1,0}) all-gather-start(%w), channel_id=1, replica_groups=[1,8]<=[8]
  %whole = bf16[2048,64]{1,0} all-gather-done(%gather)
  %scatter = ((bf16[2048,64]{1,0}, bf16[2048,64]{1,0}), (bf16[256,64]{1,0}, bf16[256,64]{1,0}))
  %parts = (bf16[256,64]{1,0}, bf16[256,64]{1,0}) reduce-scatter-done(%scatter)
  %part = bf16[256,64]{1,0} get-tuple-element(%parts), index=0
  ROOT %next = (s32[], bf16[256,64]{1,0}, bf16[2048,64]{1,0}) tuple(%i, %part, %whole)
}

%condition (state: (s32[], bf16[256,64], bf16[2048,64])) -> pred[] {
  %state = (s32[], bf16[256,64]{1,0}, bf16[2048,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %n = s32[] constant(6)
  ROOT %go = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (w: bf16[256,64], g: bf16[2048,64]) -> bf16[256,64] {
  %w = bf16[256,64]{1,0} parameter(0)
  %g = bf16[2048,64]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[256,64]{1,0}, bf16[2048,64]{1,0}) tuple(%zero, %w, %g)
  %loop = (s32[], bf16[256,64]{1,0}, bf16[2048,64]{1,0}) while(%start), condition=%condition, body=%body, CONFIG
  ROOT %end = bf16[256,64]{1,0} get-tuple-element(%loop), index=1
}
"""
GPU = GPU.replace("CONFIG", 'backend_config={"known_trip_count":{"n":"6"}}').replace(
    "(bf16[256,64]{1,0}, bf16[256,64]{1,0}))\n",
    "(bf16[256,64]{1,0}, bf16[256,64]{1,0})) reduce-scatter-start(%g, %whole), channel_id=1, "
    "replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add\n",
)


@pytest.fixture(scope="module")
def found():
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    module = parse_module(result.stdout)
    return find_collectives(module, execute(module), AXES, [0] * 8)


@pytest.mark.parametrize(
    "kind, axes, group, payload, sent",
    [
        ("all-reduce", ("fsdp",), 2, SIZE, SIZE),  # twice half of it
        ("all-gather", ("data",), 2, 2 * SIZE, SIZE),
        ("reduce-scatter", ("data",), 2, 2 * SIZE, SIZE),
        ("collective-permute", ("tensor",), 2, SIZE, SIZE),
        ("all-to-all", ("data", "tensor"), 4, SIZE, SIZE * 3 / 4),
    ],
)
def test_each_kind_in_a_scan(found, kind, axes, group, payload, sent):
    (collective,) = [collective for collective in found if collective.kind == kind and collective.axes == axes]
    assert (collective.times, collective.group, collective.payload, collective.sent) == (LAYERS, group, payload, sent)
    assert not collective.estimated
    assert [place.split()[-1] for place in collective.source.split(" < ")[:2]] == ["layer", "step"]


def test_one_after_the_scan(found):
    (collective,) = [collective for collective in found if len(collective.axes) == 3]
    assert (collective.kind, collective.times, collective.group, collective.payload, collective.sent) == (
        "all-reduce",
        1,
        8,
        4,
        4 * 2 * 7 / 8,
    )
    assert len(found) == 6


def test_started_and_awaited_counts_once_on_a_gpu():
    module = parse_module(GPU)
    gather, scatter = find_collectives(module, execute(module), (("fsdp", 8),), [0] * 8)
    whole = 2048 * 64 * 2
    assert (gather.kind, gather.times, gather.payload, gather.sent) == ("all-gather", 6, whole, whole * 7 / 8)
    assert (scatter.kind, scatter.times, scatter.payload) == ("reduce-scatter", 6, 2 * whole)
    assert gather.asynchronous and scatter.asynchronous
    assert scatter.op_name == "checkpoint/reduce_scatter"


def test_a_program_for_another_mesh_is_refused():
    module = parse_module(GPU)
    with pytest.raises(UserError, match="is for 8 devices, its mesh has 4"):
        find_collectives(module, execute(module), (("fsdp", 4),), [0] * 4)
