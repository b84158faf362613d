"""A training run as a job to plan. Its programs are the trainer's own; their arguments are shapes.

job = training_job(Run(model, GRPOConfig(max_steps=1), MeshSettings(fsdp=16)), parse_topology("v5e:4x4"))
report = plan(job, topology)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, params_of
from trace_jax.models.execution import Execution, execution_for
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.models.sharding import check_mesh
from trace_jax.parallel.mesh import BATCH_AXES, MeshSettings, batch_shards, make_mesh
from trace_jax.planning.compile import Job, Program
from trace_jax.planning.decoding import decode_program
from trace_jax.planning.devices import describe_devices
from trace_jax.planning.flops import Formulas
from trace_jax.planning.kernels import attention_kernels, computed_share
from trace_jax.planning.sharded import sharded_bytes, with_shardings
from trace_jax.planning.topology import Topology
from trace_jax.training import step
from trace_jax.training.batch import MicroBatch, micro_batches
from trace_jax.training.flops import Work, attention_tokens, gradient_flops, score_flops, work
from trace_jax.training.loss import policy_loss_config
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig

Tree = Any
_TEMPERATURE = 1.0  # of sampling; a step costs the same at any temperature
_NO_CUDNN = "cuDNN's attention cannot be compiled without a GPU; the plan has XLA's attention, row by row, instead"


@dataclass(frozen=True)
class Decoding:
    """The decode step to plan: slots a device, and the capacity of a slot in tokens."""

    slots: int
    capacity: int


@dataclass(frozen=True)
class Run:
    """A run to plan.

    All episodes are assumed to have the same lengths: a prompt, which its group shares, and a completion, of which the
    first ``trained_share`` is sampled. With ``decoding`` the engine's decode step is planned as well.
    """

    model: DecoderConfig
    training: GRPOConfig
    mesh: MeshSettings
    dtype: str = "bfloat16"
    adapters: int = 1
    prompt_tokens: int = 1024
    completion_tokens: int = 1024
    trained_share: float = 0.4
    decoding: Decoding | None = None


def training_job(run: Run, topology: Topology) -> Job:
    """The programs of one optimiser step: scores if the loss needs them, gradients, their sum, and the optimiser.

    ``times`` counts the runs of each program in a step. If micro-batches have several shapes, each shape has programs
    of its own. Raises UserError if the mesh does not fit the model or the topology.
    """
    learner = _learner(run, topology)
    batches = _batches(run, batch_shards(learner.mesh))
    formulas = _attention_formulas(run, batches)
    shapes = Counter(_shapes(micro) for micro in batches)
    passes = [
        _passes(learner, formulas, MicroBatch(*shape), count, f" {number}" if len(shapes) > 1 else "")
        for number, (shape, count) in enumerate(shapes.items(), start=1)
    ]
    gradients = passes[-1].gradients  # their shapes are the same for every micro-batch
    programs = [program for made in passes for program in made.programs]
    if len(batches) > 1:
        programs.append(_sum(learner, gradients, len(batches) - 1))
    programs.append(_update(learner, gradients))
    if run.decoding is not None:
        programs.append(_decode(learner, run.decoding))
    counted = work(batches)
    return Job(tuple(programs), counted.tokens, _model_flops(run, counted))


def learner_shapes(run: Run, mesh: Mesh) -> tuple[Tree, LoRA, Tree]:
    """Shapes and shardings of the arrays of a learner: the base, its adapters, the optimiser's state."""
    training = run.training
    program = step.Program(run.model, mesh, Execution(), training.target_modules, _TEMPERATURE)
    params = jax.eval_shape(lambda: params_of(Decoder(run.model, dtype=jnp.dtype(run.dtype))))
    lora = jax.eval_shape(
        lambda: init_lora(run.model, training.rank, training.alpha, training.target_modules, run.adapters)
    )
    state = jax.eval_shape(_optimizer(training).init, lora.weights)
    state_specs = step.state_specs(state, lora.weights, program.lora_specs)
    return (
        with_shardings(mesh, params, program.param_specs),
        with_shardings(mesh, lora, program.adapter_specs),
        with_shardings(mesh, state, state_specs),
    )


def _optimizer(training: GRPOConfig) -> optax.GradientTransformation:
    return step.optimizer(training.learning_rate, training.warmup_steps, training.max_grad_norm)


@dataclass(frozen=True)
class _Learner:
    """A learner without values: shapes with shardings over ``mesh``.

    ``past`` holds the earlier weights of the adapters, which sampled the stale tokens. ``notes`` are added to the plans
    of the passes through the model.
    """

    run: Run
    mesh: Mesh
    step: step.Program
    params: Tree
    lora: LoRA
    state: Tree
    past: list[Tree]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Passes:
    """Programs of one shape of micro-batches. The last one returns ``gradients``: shapes of gradients and metrics."""

    programs: tuple[Program, ...]
    gradients: Tree


def _learner(run: Run, topology: Topology) -> _Learner:
    mesh = make_mesh(run.mesh, describe_devices(topology))
    check_mesh(run.model, mesh)
    execution, notes = _execution(run, topology)
    program = step.Program(run.model, mesh, execution, run.training.target_modules, _TEMPERATURE)
    params, lora, state = learner_shapes(run, mesh)
    return _Learner(run, mesh, program, params, lora, state, [lora.weights] * run.training.max_staleness, notes)


def _batches(run: Run, shards: int) -> list[MicroBatch]:
    training = run.training
    return micro_batches(
        list(_samples(run)),
        micro_batch_tokens=training.micro_batch_tokens,
        loss_type=training.loss_type,
        max_completion_length=training.max_completion_length,
        shards=shards,
        attention_tokens=attention_tokens(run.model),
        row_tokens=training.row_tokens,
    )


def _passes(learner: _Learner, formulas: Formulas, shapes: MicroBatch, count: int, name: str) -> _Passes:
    """Programs for scores and gradients of the ``count`` micro-batches of one shape; ``name`` is a suffix of names."""
    training, mesh = learner.run.training, learner.mesh
    micro = with_shardings(mesh, shapes, P(BATCH_AXES))
    old = micro.sampler_logprobs_M if training.num_iterations > 1 else None
    reference = micro.sampler_logprobs_M if training.beta > 0 else None
    resident = sharded_bytes((learner.state, learner.past))
    inputs = learner.params, learner.lora, micro
    programs = []
    for scores, kind, adapted in ((old, "old scores", True), (reference, "reference scores", False)):
        if scores is not None:
            score = step.score_function(learner.step, adapted)
            times = count / training.num_iterations  # scores are computed once for all optimiser steps on a batch
            programs.append(_model_pass(learner, formulas, f"{kind}{name}", score, inputs, times, resident))
    gradient = step.gradient_function(learner.step, policy_loss_config(training))
    arguments = *inputs, old, reference
    resident += sharded_bytes(learner.lora.weights)  # the sum of the gradients of earlier micro-batches
    programs.append(_model_pass(learner, formulas, f"gradients{name}", gradient, arguments, count, resident))
    gradients = with_shardings(mesh, jax.eval_shape(gradient, *arguments), (learner.step.lora_specs, P()))
    return _Passes(tuple(programs), gradients)


def _model_pass(
    learner: _Learner, formulas: Formulas, name: str, function: Any, arguments: tuple, times: float, resident: int
) -> Program:
    return Program(name, function, arguments, learner.mesh, times, formulas, notes=learner.notes, resident=resident)


def _sum(learner: _Learner, gradients: Tree, times: int) -> Program:
    resident = sharded_bytes((learner.params, learner.lora, learner.state, learner.past))
    return Program("sum of gradients", step.add_up, (gradients, gradients), learner.mesh, times, resident=resident)


def _update(learner: _Learner, gradients: Tree) -> Program:
    function = step.apply_function(_optimizer(learner.run.training))
    active = with_shardings(learner.mesh, jax.ShapeDtypeStruct((learner.run.adapters,), jnp.bool), P())
    arguments = learner.lora.weights, learner.state, gradients[0], active
    resident = sharded_bytes((learner.params, learner.past))
    return Program("optimiser", function, arguments, learner.mesh, resident=resident)


def _decode(learner: _Learner, decoding: Decoding) -> Program:
    resident = sharded_bytes((learner.params, learner.state, learner.past))  # the trainer has its own copy of the base
    return decode_program(
        learner.run.model,
        learner.mesh,
        learner.run.dtype,
        learner.lora,
        slots=decoding.slots,
        capacity=decoding.capacity,
        resident=resident,
    )


def _execution(run: Run, topology: Topology) -> tuple[Execution, tuple[str, ...]]:
    """The kernels of the topology's platform, with XLA's attention in place of cuDNN's, and notes about this."""
    execution = execution_for("tpu" if topology.chip.rank else "gpu", run.training.remat)
    if execution.attention != "cudnn":
        return execution, ()
    return replace(execution, attention="xla", attention_rows=True), (_NO_CUDNN,)


def _attention_formulas(run: Run, batches: Sequence[MicroBatch]) -> Formulas:
    segments, parents = (
        np.concatenate([getattr(micro, name) for micro in batches]) for name in ("segment_ids_BT", "parent_ids_BT")
    )
    group = run.model.num_heads // run.model.num_kv_heads
    return attention_kernels(computed_share(segments, parents, group, jnp.dtype(run.dtype).itemsize))


def _samples(run: Run) -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    trained = np.zeros(run.prompt_tokens + run.completion_tokens, bool)
    trained[run.prompt_tokens :][: max(1, round(run.trained_share * run.completion_tokens))] = True
    for group in range(run.training.groups_per_step * run.adapters):
        prompt = rng.integers(0, run.model.vocab_size, run.prompt_tokens)
        for _ in range(run.training.num_generations):
            tokens = np.concatenate([prompt, rng.integers(0, run.model.vocab_size, run.completion_tokens)])
            yield Sample(tokens, trained, np.zeros(len(tokens)), 1.0, group, group % run.adapters)


def _shapes(micro: MicroBatch) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(micro))


def _model_flops(run: Run, counted: Work) -> float:
    training, model = run.training, run.model
    flops = gradient_flops(model, training.rank, training.target_modules, counted)
    if training.num_iterations > 1:
        flops += score_flops(model, training.rank, training.target_modules, counted) / training.num_iterations
    if training.beta > 0:
        flops += score_flops(model, training.rank, (), counted) / training.num_iterations
    return flops
