"""Programs compiled for real TPU topologies, with no TPU, against what their sizes say."""

import jax
import jax.numpy as jnp
import pytest
from yardstick import Sizes, mlp_job, single

from trace_jax.planning.chips import GIB
from trace_jax.planning.kernels import attention_kernels
from trace_jax.planning.planner import plan
from trace_jax.planning.topology import parse_topology

libtpu = pytest.importorskip("libtpu")

BF16 = 2


def by_kind(report, kind, axes):
    """Executions, payload and bytes sent of one kind over some mesh axes."""
    uses = [use for use in report.programs[0].collectives if use.kind == kind and use.axes == axes]
    return sum(u.count for u in uses), sum(u.payload_bytes for u in uses), sum(u.sent_bytes for u in uses)


@pytest.mark.parametrize("level", ["O0", "default"])
def test_a_program_of_known_cost(level):
    sizes = Sizes(B=512, D=512, F=1024, L=3)
    topology = parse_topology("v5e:2x2")
    report = plan(mlp_job(topology, (1, 4, 1, 1), sizes), topology, level=level)
    program = report.programs[0]
    weight = sizes.D * sizes.F * BF16  # a whole one, as a chip sees it when gathered

    # Two weights a layer, in the forward pass and again in the backward one.
    count, payload, sent = by_kind(report, "all-gather", ("fsdp",))
    assert (count, payload, sent) == (4 * sizes.L, 4 * sizes.L * weight, 4 * sizes.L * weight * 3 // 4)
    # One scatter a gradient, and the loss.
    count, payload, sent = by_kind(report, "reduce-scatter", ("fsdp",))
    assert (count, payload, sent) == (2 * sizes.L, 2 * sizes.L * weight, 2 * sizes.L * weight * 3 // 4)
    assert by_kind(report, "all-reduce", ("fsdp",)) == (1, 4, 6)
    assert sum(use.count for use in program.collectives) == 6 * sizes.L + 1

    # Per layer: two products forward, the first again (the second is not needed), four backward.
    assert program.cost.flops == 7 * sizes.L * 2 * sizes.B * sizes.D * sizes.F
    weights = 2 * sizes.L * weight // 4
    assert program.memory.arguments == weights + sizes.B * sizes.D * BF16
    assert program.memory.outputs == pytest.approx(weights, abs=4096)  # and the loss
    assert program.memory.fits and program.memory.available == int(15.75 * GIB)
    if level == "O0":  # otherwise it lies in the chip's fast memory
        saved = sizes.L * sizes.B * sizes.D * BF16  # the input of each layer
        assert program.memory.temporaries >= saved
        assert (program.memory.buffers[0].bytes, program.memory.buffers[0].shape) == (saved, "bf16[3,512,512]")
    else:
        assert any(use.asynchronous for use in program.collectives)

    gathers = [use for use in program.collectives if use.kind == "all-gather"]
    assert {use.source.split(":")[0] for use in gathers} == {"yardstick.py"}
    assert all("all_gather" in use.purpose for use in gathers)
    assert report.step.tokens_per_second == pytest.approx(4 * sizes.B / report.step.seconds)
    assert report.step.mfu / report.step.hardware_utilisation == pytest.approx(6 / 7)
    assert report.step.seconds <= report.step.seconds_without_overlap


def test_axes_of_a_mesh_are_told_apart():
    sizes = Sizes(B=256, D=256, F=512, L=2)
    topology = parse_topology("v5p:2x2x2")
    report = plan(mlp_job(topology, (2, 2, 2, 1), sizes), topology)
    weight, rows = sizes.D * sizes.F * BF16 // 2, sizes.B * sizes.D * BF16
    assert by_kind(report, "all-gather", ("fsdp",))[:2] == (4 * sizes.L, 4 * sizes.L * weight)
    # Forward: the sum over tensor; backward: that of the gradient of x. Two arrays of B × D a layer.
    assert by_kind(report, "all-reduce", ("tensor",))[:2] == (2 * sizes.L, 2 * sizes.L * rows)
    # Gradients are summed over data after they were scattered over fsdp, each chip's part of both weights.
    summed = sum(use.payload_bytes for use in report.programs[0].collectives if use.axes == ("data",))
    assert summed == 2 * sizes.L * weight // 2


@pytest.mark.skipif(
    tuple(map(int, libtpu.__version__.split(".")[:3])) < (0, 0, 50),
    reason="libtpu 0.0.42 aborts on tpu7x at O0 (offload_collective_strategies.cc)",
)
def test_both_halves_of_a_chip_and_its_sparse_cores():
    sizes = Sizes(B=512, D=512, F=1024, L=2)
    topology = parse_topology("tpu7x:2x2x1")
    report = plan(mlp_job(topology, (1, 4, 2, 1), sizes), topology)
    weight = sizes.D * sizes.F * BF16 // 2
    assert (report.chips, report.devices) == (4, 8)
    assert by_kind(report, "all-gather", ("fsdp",))[:2] == (4 * sizes.L, 4 * sizes.L * weight)
    assert any(use.asynchronous for use in report.programs[0].collectives)


def test_what_goes_over_the_network_between_slices():
    topology = parse_topology("2*v5p:2x2x1")
    sizes = Sizes(B=128, D=256, F=512, L=2)
    report = plan(mlp_job(topology, (2, 4, 1, 1), sizes), topology)
    moved = [use for use in report.programs[0].collectives if use.kind.startswith("network-")]
    assert {use.kind for use in moved} == {"network-all-reduce"} and {use.axes for use in moved} <= {("data",)}
    # A chip's part of the gradients; the loss is another four bytes, reduced over fsdp before it.
    parts = 2 * sizes.L * sizes.D * sizes.F * BF16 // 4
    assert parts <= sum(use.payload_bytes for use in moved) <= parts + 1024
    assert by_kind(report, "all-gather", ("fsdp",))[1] == 4 * sizes.L * sizes.D * sizes.F * BF16
    assert all(use.seconds >= use.payload_bytes / topology.chip.network for use in moved)


def test_a_program_that_does_not_fit_names_what_is_too_large():
    topology = parse_topology("v5e:2x2")
    report = plan(mlp_job(topology, (1, 4, 1, 1), Sizes(B=1 << 19, D=2048, F=8192, L=6)), topology)
    memory = report.programs[0].memory
    assert not report.fits and report.step is None and report.programs[0].cost is None
    assert memory.peak > memory.available == int(15.75 * GIB)
    saved = 6 * (1 << 19) * 2048 * BF16
    assert (memory.buffers[0].bytes, memory.buffers[0].shape) == (saved, "bf16[6,524288,2048]")
    assert "does not fit" in memory.verdict and "12.00 GiB (yardstick.py" in memory.verdict
    assert "remat policy" in memory.verdict


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    def until_large(x):
        return jax.lax.while_loop(lambda x: jnp.max(x) < 1000, lambda x: jax.lax.psum(x, "fsdp") @ x, x)

    job, topology = single(until_large, [(256, 256)])
    program = plan(job, topology).programs[0]
    assert program.cost.flops == 2 * 256**3
    assert program.collectives[0].count == 1 and program.collectives[0].estimated
    assert any("depend on data" in note for note in program.warnings)


def test_kernels_tell_their_flops_or_have_a_formula():
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    N, T, H = 2, 256, 128
    mask = masks.MultiHeadMask([masks.CausalMask((T, T)) for _ in range(N)])

    def gradients(q, k, v):
        attend = kernel.make_splash_mha_single_device(mask)
        return jax.grad(lambda *qkv: jnp.sum(attend(*qkv).astype(jnp.float32)), argnums=(0, 1, 2))(q, k, v)

    product = 2 * N * T * T * H
    silent, topology = single(gradients, [(N, T, H)] * 3)
    program = plan(silent, topology).programs[0]
    assert program.cost.flops == 0
    assert sum("has no cost estimate" in note for note in program.warnings) == 3
    told, _ = single(gradients, [(N, T, H)] * 3, formulas=attention_kernels(0.5))
    program = plan(told, topology).programs[0]
    assert program.cost.flops == (2 + 4 + 3) * product / 2
    assert not any("FLOPs" in note for note in program.warnings)


def test_grouped_products_count_each_row_once():
    M, D, F, E = 1024, 256, 512, 4
    job, topology = single(
        lambda x, w: jax.lax.ragged_dot(x, w, jnp.full((E,), M // E, jnp.int32)), [(M, D), (E, D, F)]
    )
    assert plan(job, topology).programs[0].cost.flops == 2 * M * D * F


def test_batched_products_count_no_gaps():
    B, N, T, H = 3, 4, 256, 128

    def attend(q, k, v):
        scores = jnp.einsum("bqnh,bknh->bnqk", q, k)
        return jnp.einsum("bnqk,bknh->bqnh", jax.nn.softmax(scores), v)

    job, topology = single(
        lambda *qkv: jax.grad(lambda *a: jnp.sum(attend(*a).astype(jnp.float32) ** 2), argnums=(0, 1, 2))(*qkv),
        [(B, T, N, H)] * 3,
    )
    assert plan(job, topology).programs[0].cost.flops == 6 * 2 * B * N * T * T * H


def test_memory_traffic_of_a_product_and_of_sliced_weights():
    B, D, L = 1024, 2048, 8
    once, topology = single(lambda x, w: x @ w, [(B, D), (D, D)])
    assert plan(once, topology).programs[0].cost.hbm_bytes == BF16 * (2 * B * D + D * D)
    scanned, _ = single(lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0], [(B, D), (L, D, D)])
    moved = plan(scanned, topology).programs[0].cost.hbm_bytes
    least = L * BF16 * (2 * B * D + D * D)  # each layer reads its own weight, not all of them
    copies = (2 * L + 2) * BF16 * B * D  # of what the loop carries, at this level
    assert moved == pytest.approx(least + copies, rel=1e-3)
