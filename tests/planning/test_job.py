"""The trainer's own step, compiled for chips that are not here, against what its sizes say."""

import json
import math
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.plan_config import configured
from trace_jax.errors import UserError
from trace_jax.models.attention import packed_mask
from trace_jax.models.config import DecoderConfig
from trace_jax.parallel.mesh import MeshSettings
from trace_jax.planning.chips import GIB
from trace_jax.planning.job import Decoding, Run, training_job
from trace_jax.planning.planner import plan
from trace_jax.planning.topology import parse_topology
from trace_jax.training.batch import micro_batches
from trace_jax.training.flops import Work, gradient_flops, work
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig

pytest.importorskip("libtpu")

ROOT = Path(__file__).parents[2]
TINY = DecoderConfig(
    512,
    256,
    3,
    4,
    2,
    128,
    0,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    norm_topk_prob=True,
    model_type="qwen3_moe",
)
DENSE = DecoderConfig(512, 256, 2, 4, 2, 128, 512)
TRAINING = GRPOConfig(max_steps=1, rank=8, groups_per_step=4, num_generations=2, micro_batch_tokens=512, remat="full")
BF16, F32 = 2, 4
# Of a chip for Qwen3-30B-A3B as it is shipped: GiB of memory, GB that a micro-batch gathers, scatters and sums.
BUDGET = 58.0
KINDS = {"all-gather": 15.2, "reduce-scatter": 10.1, "all-reduce": 1.8, "collective-permute": 0.1}


def tiny(**changes):
    run = Run(TINY, TRAINING, MeshSettings(1, 2, 1, 2), prompt_tokens=128, completion_tokens=128)
    return replace(run, **changes)


def test_every_collective_of_the_step_is_accounted_for():
    run, topology = tiny(), parse_topology("v5e:2x2")
    job = training_job(run, topology)
    report = plan(job, topology)
    assert report.fits, [program.memory.verdict for program in report.programs]
    moved: Counter = Counter()
    for collective in report.programs[
        0
    ].collectives:  # of any kind: XLA writes small gathers and scatters as all-reduces
        moved[collective.axes] += collective.payload_bytes

    m, S, P, A, R = run.model, TINY.num_experts_per_tok, 2, 1, TRAINING.rank
    D, F, E, L, heads, keys = m.hidden_size, m.moe_intermediate_size, m.num_experts // P, m.num_layers, 4 * 128, 2 * 128
    U = job.programs[0].arguments[2].tokens_BT.size // 4  # of one shard
    # All devices' tokens, for the forward pass, for the one that is computed again, and as gradients of what was added
    # to them; those sums, and the gradients of the tokens.
    tokens = 5 * P * U * D * BF16
    # The router's weights and the adapters' gates, twice and as gradients; what every device has in its queues, twice.
    told = 3 * P * U * (S + A) * F32 + 2 * P * (3 * U * S + 2 * m.num_experts) * F32
    # The gradients of adapters that are split over fsdp alone.
    split = 4 * D // 2 * R * F32
    assert moved["expert",] == L * (tokens + told + split)
    # Every layer's weights, forward and backward; of the adapters the halves that lie along the width, and their
    # gradients; the head and the ids of tokens once, and the embedded tokens to their rows.
    weights = (2 * D * heads + 2 * D * keys + 3 * D * F * E) * BF16
    halves = (4 + 3 * E) * D * R * F32
    once = m.vocab_size * D * BF16 + 2 * U * F32 + U * D * BF16
    # The gradients of the experts' other halves.
    assert moved["fsdp",] == L * (2 * weights + 3 * halves + 3 * E * F * R * F32) + once
    # The gradients of what is the same everywhere, and the sums of the metrics.
    assert moved["fsdp", "expert"] == pytest.approx(L * (2 * heads + 2 * keys) * R * F32, abs=256)
    assert len(moved) == 3


@pytest.fixture(scope="module")
def large():
    """The job and the plan of the shipped configuration of Qwen3-30B-A3B."""
    run = configured(import_module("configs.qwen3_30b_a3b").get_config())
    topology = parse_topology("v5p:2x4x4")
    job = training_job(run, topology)
    return run, job, plan(job, topology)


@pytest.mark.slow  # the full model takes minutes; the small one above is held to the same formulas
def test_qwen3_30b_a3b_stays_within_its_budget_of_memory(large):
    run, job, report = large
    gradients = report.programs[0].memory
    assert report.fits and report.chips == 32
    experts = 3 * 128 // run.mesh.expert * 2048 * 768 * 48 * BF16
    others = (2 * 2048 * 4096 + 2 * 2048 * 512) * 48 * BF16 + 2 * 151936 * 2048 * BF16 + 48 * 2048 * 128 * F32
    assert gradients.arguments < experts + others + 1.02 * _adapters(job)
    assert gradients.peak < BUDGET * GIB, gradients.verdict


@pytest.mark.slow  # the full model takes minutes; the small one above is held to the same formulas
def test_qwen3_30b_a3b_stays_within_its_budget_of_communication(large):
    """Of every kind, at most what test_every_collective_of_the_step_is_accounted_for explains, and 2 % small change."""
    run, job, report = large
    tokens = run.mesh.expert * job.programs[0].arguments[2].tokens_BT.size // 32 * 2048 * BF16 * 48
    moved: Counter = Counter()
    for collective in report.programs[0].collectives:
        moved[collective.axes == ("expert",)] += collective.payload_bytes
    assert moved[True] < 1.02 * 5 * tokens + _adapters(job)
    assert moved[False] < 1.02 * _adapters(job)
    for collective in report.programs[0].totals:
        assert collective.payload_bytes < KINDS[collective.kind] * 1e9, collective
    assert report.step.mfu < report.step.hardware_utilisation < 1


def _adapters(job):
    """Bytes of a chip's adapters."""
    leaves = jax.tree.leaves(job.programs[0].arguments[1])
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves) * F32


@pytest.mark.parametrize("group", [1, 3])
def test_work_is_that_of_the_mask(group):
    rng = np.random.default_rng()
    samples = []
    for number in range(6):
        prompt = rng.integers(0, 99, int(rng.integers(4, 20)))
        for _ in range(group):
            tokens = np.concatenate([prompt, rng.integers(0, 99, int(rng.integers(3, 30)))])
            trained = np.arange(len(tokens)) >= len(prompt)
            samples.append(Sample(tokens, trained, np.zeros(len(tokens)), 1.0, number))
    batches = micro_batches(samples, micro_batch_tokens=96, loss_type="dapo", max_completion_length=1, shards=2)
    counted = work(batches)
    real = [micro.segment_ids_BT != 0 for micro in batches]
    masks = [packed_mask(micro.segment_ids_BT, micro.parent_ids_BT) for micro in batches]
    assert counted.tokens == sum(sample.sum() for sample in real)
    assert counted.trained == sum(sample.trained_T.sum() for sample in samples)
    pairs = sum(np.asarray(mask)[sample].sum() for mask, sample in zip(masks, real, strict=True))
    assert counted.pairs == pairs


def test_flops_of_the_model():
    done = Work(tokens=1000, trained=300, pairs=70_000)
    layer = 256 * 512 * 2 + 256 * 256 * 2 + 3 * 256 * 512
    lora = 8 * (2 * (256 + 512) + 2 * (256 + 256) + 3 * (256 + 512))
    expected = 2 * (1000 * (4 * layer + 6 * lora) + 12 * 70_000 * 512) + 4 * 300 * 512 * 256
    targets = TRAINING.target_modules
    assert gradient_flops(DENSE, 8, targets, done) == expected
    two_of_eight = 256 * 512 * 2 + 256 * 256 * 2 + 2 * 3 * 256 * 128 + 256 * 8
    assert gradient_flops(TINY, 8, (), Work(1000, 0, 0)) == 3 * 1000 * 4 * two_of_eight


def test_programs_are_those_that_the_loss_needs():
    topology = parse_topology("v5e:2x2")
    job = training_job(tiny(training=replace(TRAINING, micro_batch_tokens=256)), topology)
    assert [(program.name, program.times) for program in job.programs] == [
        ("gradients", 2),
        ("sum of gradients", 1),
        ("optimiser", 1),
    ]
    assert job.tokens == 8 * 256  # rows of one episode each: nothing is shared
    training = replace(TRAINING, beta=0.1, num_iterations=2)
    names = {program.name: program.times for program in training_job(tiny(training=training), topology).programs}
    assert names == {"old scores": 0.5, "reference scores": 0.5, "gradients": 1, "optimiser": 1}


def test_weights_kept_for_stale_tokens_count_in_every_program():
    topology = parse_topology("v5e:2x2")
    job, kept = (
        training_job(tiny(training=replace(TRAINING, micro_batch_tokens=256, max_staleness=bound)), topology)
        for bound in (0, 2)
    )
    more = [after.resident - before.resident for before, after in zip(job.programs, kept.programs, strict=True)]
    assert more == [2 * (_adapters(job) - F32)] * 3  # the scale does not change


def test_the_engines_decode_step_sums_over_tensor_and_moves_nothing_else():
    slots, capacity, topology = 4, 256, parse_topology("v5e:2x2")
    run = tiny(model=DENSE, mesh=MeshSettings(2, 1, 2, 1), decoding=Decoding(slots, capacity))
    job = training_job(run, topology)
    assert [program.name for program in job.programs][-2:] == ["optimiser", "decode"] and job.programs[-1].times == 0
    program = plan(replace(job, programs=job.programs[-1:]), topology).programs[0]
    cache = 2 * DENSE.num_layers * slots * capacity * DENSE.num_kv_heads // 2 * DENSE.head_dim * BF16
    assert program.memory.aliased >= cache  # written in place
    # After attention and after the feed-forward network of every layer. (How many rows have finished is summed in the
    # loop's condition, which is not counted.)
    assert {(collective.kind, collective.axes) for collective in program.collectives} == {("all-reduce", ("tensor",))}
    moved = sum(collective.payload_bytes for collective in program.collectives)
    assert moved == 2 * DENSE.num_layers * slots * DENSE.hidden_size * BF16


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(UserError, match="tensor 4 does not divide num_key_value_heads 2"):
        training_job(tiny(mesh=MeshSettings(1, 1, 4, 1)), parse_topology("v5e:2x2"))
    with pytest.raises(UserError, match="takes 8 devices, but there are 4"):
        training_job(tiny(mesh=MeshSettings(8, 1, 1, 1)), parse_topology("v5e:2x2"))
    config = import_module("configs.base").get_config()
    with pytest.raises(UserError, match="neither plan.model nor base.path is set"):
        configured(config)
    config.plan.model = "nowhere.json"
    with pytest.raises(UserError, match="nowhere.json is missing"):
        configured(config)


@pytest.mark.parametrize("name", ["qwen3_30b_a3b", "qwen3_8b"])
def test_shipped_configurations_are_of_the_model_that_they_name(name):
    run = configured(import_module(f"configs.{name}").get_config())
    data = json.loads((ROOT / "configs" / "models" / f"{name}.json").read_text())
    assert run.model.num_layers == data["num_hidden_layers"] and run.dtype == "bfloat16"
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_shapes(run.model)))
    assert parameters == pytest.approx({"qwen3_30b_a3b": 30.5e9, "qwen3_8b": 8.2e9}[name], rel=0.01)


def _shapes(model):
    from trace_jax.models.decoder import Decoder, params_of

    return jax.eval_shape(lambda: params_of(Decoder(model)))


def test_a_described_gpu_computes_attention_without_cudnn():
    pytest.importorskip("jax_cuda12_plugin", reason='needs pip install "jax[cuda12-local]"')
    topology = parse_topology("h100:4")
    report = plan(training_job(tiny(), topology), topology)
    assert report.fits and any("cuDNN" in note for note in report.programs[0].warnings)
