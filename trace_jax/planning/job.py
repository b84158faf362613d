"""A training run as a job to plan: the trainer's own programs, with arguments that are only shapes.

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
from trace_jax.planning.placed import bytes_held, placed
from trace_jax.planning.topology import Topology
from trace_jax.training import step
from trace_jax.training.batch import MicroBatch, micro_batches
from trace_jax.training.flops import Work, attention_tokens, gradient_flops, score_flops, work
from trace_jax.training.loss import policy_loss_config
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig

Tree = Any
_TEMPERATURE = 1.0  # of sampling: a step costs the same at any temperature
_NO_CUDNN = "cuDNN's attention cannot be compiled without a GPU: XLA's, row by row, stands in for it"


@dataclass(frozen=True)
class Decoding:
    """Slots and their capacity in tokens, on each device that holds other rows."""

    slots: int
    capacity: int


@dataclass(frozen=True)
class Run:
    """A run to plan. Every episode is taken to have the same length: a prompt, which its group shares, and what comes
    behind it, of which the first ``trained_share`` is sampled. ``decoding``: plan the engine's step as well."""

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

    ``times`` says how often each runs in a step; where micro-batches differ in shape, each shape is a program.
    Raises UserError for a mesh that fits neither the model nor the topology.
    """
    return _Programs(run, topology).job()


def held(run: Run, mesh: Mesh) -> tuple[Tree, LoRA, Tree]:
    """Shapes, with their places in the mesh, of what a learner holds: the base, its adapters, the optimiser's state."""
    training = run.training
    program = step.Program(run.model, mesh, Execution(), training.target_modules, _TEMPERATURE)
    params = jax.eval_shape(lambda: params_of(Decoder(run.model, dtype=jnp.dtype(run.dtype))))
    lora = jax.eval_shape(
        lambda: init_lora(run.model, training.rank, training.alpha, training.target_modules, run.adapters)
    )
    state = jax.eval_shape(_optimizer(training).init, lora.weights)
    state_specs = step.state_specs(state, lora.weights, program.lora_specs)
    return (
        placed(mesh, params, program.param_specs),
        placed(mesh, lora, program.adapter_specs),
        placed(mesh, state, state_specs),
    )


def _optimizer(training: GRPOConfig) -> optax.GradientTransformation:
    return step.optimizer(training.learning_rate, training.warmup_steps, training.max_grad_norm)


class _Programs:
    def __init__(self, run: Run, topology: Topology) -> None:
        self.run, self.mesh = run, make_mesh(run.mesh, describe_devices(topology))
        check_mesh(run.model, self.mesh)
        execution, self.notes = _execution(run, topology)
        self.step = step.Program(run.model, self.mesh, execution, run.training.target_modules, _TEMPERATURE)
        self.params, self.lora, self.state = held(run, self.mesh)
        self.past = [self.lora.weights] * run.training.max_staleness  # weights that sampled, kept to compare with

    def job(self) -> Job:
        run, training = self.run, self.run.training
        batches = micro_batches(
            list(_samples(run)),
            micro_batch_tokens=training.micro_batch_tokens,
            loss_type=training.loss_type,
            max_completion_length=training.max_completion_length,
            shards=batch_shards(self.mesh),
            attention_tokens=attention_tokens(run.model),
            row_tokens=training.row_tokens,
        )
        done = work(batches)
        self.formulas = _attention_formulas(run, batches)
        shapes = Counter(_shapes(micro) for micro in batches)
        programs: list[Program] = []
        for number, (shape, count) in enumerate(shapes.items(), start=1):
            name = f" {number}" if len(shapes) > 1 else ""
            programs += self.of_micro_batch(MicroBatch(*shape), count, name)
        if len(batches) > 1:
            programs.append(self.sum(len(batches) - 1))
        programs.append(self.apply())
        if run.decoding is not None:
            programs.append(self.decode(run.decoding))
        return Job(tuple(programs), done.tokens, _model_flops(run, done))

    def of_micro_batch(self, shapes: MicroBatch, count: int, name: str) -> Iterator[Program]:
        training = self.run.training
        micro = placed(self.mesh, shapes, P(BATCH_AXES))
        old = micro.sampler_logprobs_M if training.num_iterations > 1 else None
        reference = micro.sampler_logprobs_M if training.beta > 0 else None
        times = count / training.num_iterations  # scores are made once for all optimiser steps on a batch
        beside = bytes_held((self.state, self.past))
        for scored, kind, adapted in ((old, "old scores", True), (reference, "reference scores", False)):
            if scored is not None:
                score = step.score_function(self.step, adapted)
                yield self.model_pass(f"{kind}{name}", score, (self.params, self.lora, micro), times, beside)
        function = step.gradient_function(self.step, policy_loss_config(training))
        arguments = self.params, self.lora, micro, old, reference
        # The sum of the micro-batches before this one waits meanwhile.
        beside += bytes_held(self.lora.weights)
        self.result = function, arguments
        yield self.model_pass(f"gradients{name}", function, arguments, count, beside)

    def sum(self, times: int) -> Program:
        part = self.gradients()
        beside = bytes_held((self.params, self.lora, self.state, self.past))
        return Program("sum of gradients", step.add_up, (part, part), self.mesh, times, beside=beside)

    def apply(self) -> Program:
        active = placed(self.mesh, jax.ShapeDtypeStruct((self.run.adapters,), jnp.bool), P())
        arguments = self.lora.weights, self.state, self.gradients()[0], active
        beside = bytes_held((self.params, self.past))
        return Program(
            "optimiser", step.apply_function(_optimizer(self.run.training)), arguments, self.mesh, beside=beside
        )

    def decode(self, decoding: Decoding) -> Program:
        beside = bytes_held((self.params, self.state, self.past))  # the trainer's own copy of the base waits
        slots, capacity = decoding.slots, decoding.capacity
        return decode_program(self.run.model, self.mesh, self.run.dtype, self.lora, slots, capacity, beside)

    def gradients(self) -> Tree:
        """What the gradients of a micro-batch are."""
        function, arguments = self.result
        return placed(self.mesh, jax.eval_shape(function, *arguments), (self.step.lora_specs, P()))

    def model_pass(self, name: str, function: Any, arguments: tuple, times: float, beside: int) -> Program:
        return Program(name, function, arguments, self.mesh, times, self.formulas, notes=self.notes, beside=beside)


def _execution(run: Run, topology: Topology) -> tuple[Execution, tuple[str, ...]]:
    """The kernels of the topology's platform, but cuDNN's, and what there is to say about them."""
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


def _model_flops(run: Run, done: Work) -> float:
    training, model = run.training, run.model
    flops = gradient_flops(model, training.rank, training.target_modules, done)
    if training.num_iterations > 1:
        flops += score_flops(model, training.rank, training.target_modules, done) / training.num_iterations
    if training.beta > 0:
        flops += score_flops(model, training.rank, (), done) / training.num_iterations
    return flops
