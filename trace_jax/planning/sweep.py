"""Plans one run on many meshes, and on the best mesh with other micro-batches and remat policies. Ranks them by speed.

Meshes that cannot fit are not compiled. The others are sorted by a rough count of the bytes that they send for a token,
the fewest first. Every plan is a file, so that an interrupted sweep continues where it was.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from trace_jax.contract.files import read_document, write_document
from trace_jax.errors import UserError
from trace_jax.models.execution import Remat
from trace_jax.models.sharding import check_mesh
from trace_jax.parallel.mesh import AXES, MeshSettings
from trace_jax.planning.chips import GIB
from trace_jax.planning.environment import prepare_environment
from trace_jax.planning.job import Run, learner_shapes, training_job
from trace_jax.planning.planner import plan
from trace_jax.planning.report import PlanReport
from trace_jax.planning.sharded import sharded_bytes
from trace_jax.planning.topology import Topology

REMATS: tuple[Remat, ...] = ("full", "attention")
_SCALES = (0.5, 1, 2)  # of the run's micro_batch_tokens


@dataclass(frozen=True)
class Candidate:
    """One variant of the run, to be planned."""

    run: Run
    topology: Topology
    level: str

    @property
    def name(self) -> str:
        """The settings in which candidates differ, as text."""
        sizes = "_".join(f"{name}{size}" for name, size in zip(AXES, astuple(self.run.mesh), strict=True))
        return f"{sizes}_{self.run.training.micro_batch_tokens}_{self.run.training.remat}"

    def path(self, directory: Path) -> Path:
        """The file of its plan. The name contains a digest of all settings, so other settings have other files."""
        digest = hashlib.sha256(repr((self.run, self.topology, self.level)).encode()).hexdigest()[:8]
        return directory / f"{self.name}_{digest}.json"

    @property
    def may_fit(self) -> bool:
        """Whether a device has at least ``least_memory``."""
        return self.least_memory <= self.topology.chip.hbm // self.topology.chip.devices

    @cached_property
    def least_memory(self) -> int:
        """A lower bound on the bytes needed on a device.

        It counts the weights, the gradients, the optimiser's state, and the inputs of all layers for one episode.
        """
        run = self.run
        params, lora, state = (sharded_bytes(tree) for tree in learner_shapes(run, _abstract(run.mesh)))
        inputs = run.model.num_layers * (run.prompt_tokens + run.completion_tokens) * run.model.hidden_size
        return params + 2 * lora + state + inputs * jnp.dtype(run.dtype).itemsize

    @cached_property
    def sent(self) -> float:
        """A rough count of the bytes that a chip sends for a token of its own.

        fsdp gathers the layers' weights in the forward and the backward pass. tensor sums the tokens twice in each pass
        and in the recomputation. expert has three gathers and two scatters.
        """
        run, mesh = self.run, self.run.mesh
        params, _, _ = learner_shapes(run, _abstract(replace(mesh, fsdp=1)))
        tokens = run.training.micro_batch_tokens
        token = run.model.hidden_size * jnp.dtype(run.dtype).itemsize * run.model.num_layers
        weights = 2 * sharded_bytes(params["layers"]) * (mesh.fsdp - 1) / mesh.fsdp / tokens
        sums = 6 * 2 * token * (mesh.tensor - 1) / mesh.tensor
        experts = 5 * token * (mesh.expert - 1) if run.model.num_experts else 0
        return weights + sums + experts


def on_meshes(run: Run, topology: Topology, level: str) -> list[Candidate]:
    """The run on all meshes where it may fit, with the least traffic first. Raises UserError if there is none."""
    found = [Candidate(replace(run, mesh=mesh), topology, level) for mesh in meshes(run, topology)]
    fitting = [candidate for candidate in found if candidate.may_fit]
    if not fitting:
        least = min((candidate.least_memory for candidate in found), default=0) / GIB
        raise UserError(
            f"{topology.name}: this run fits on none of {len(found)} meshes, it takes at least {least:.1f} GiB a "
            "device: use more chips"
        )
    return sorted(fitting, key=lambda candidate: candidate.sent)


def variants(candidate: Candidate) -> list[Candidate]:
    """The same mesh with micro-batches of half to twice the size and with other remat policies, if they may fit."""
    run, training = candidate.run, candidate.run.training
    longest = run.prompt_tokens + run.completion_tokens
    sizes = [size for scale in _SCALES if (size := int(scale * training.micro_batch_tokens)) >= longest]
    found = [
        replace(candidate, run=replace(run, training=replace(training, micro_batch_tokens=size, remat=remat)))
        for size in sizes
        for remat in REMATS
    ]
    return [other for other in found if other != candidate and other.may_fit]


def meshes(run: Run, topology: Topology) -> Iterator[MeshSettings]:
    """All meshes of the topology's devices over which the model can be split."""
    sizes = [size for size in range(1, topology.devices + 1) if topology.devices % size == 0]
    for fsdp in sizes:
        for tensor in sizes:
            for expert in sizes if run.model.num_experts else [1]:
                data, rest = divmod(topology.devices, fsdp * tensor * expert)
                if rest or data % topology.slices:
                    continue
                mesh = MeshSettings(data, fsdp, tensor, expert)
                try:
                    check_mesh(run.model, _abstract(mesh))
                except UserError:
                    continue
                yield mesh


def sweep(
    found: Sequence[Candidate], directory: Path, workers: int, report_progress: Callable[[str, str], None]
) -> list[tuple[Candidate, PlanReport]]:
    """Plans of all candidates, the fastest first and those that do not fit last.

    ``workers`` processes compile at the same time. ``report_progress(name, problem)`` is called for each candidate;
    ``problem`` says why it cannot be compiled, and is empty otherwise. Plans that ``directory`` already holds are read.
    """
    reports: dict[str, tuple[Candidate, PlanReport]] = {}
    missing = []
    for candidate in found:
        if candidate.path(directory).exists():
            reports[candidate.name] = candidate, read_document(candidate.path(directory), PlanReport)
            report_progress(candidate.name, "")
        else:
            missing.append(candidate)
    # Without max_tasks_per_child, because a pool of one worker would then wait for ever (CPython issue 115634).
    with ProcessPoolExecutor(workers, get_context("spawn"), prepare_environment) as pool:
        futures = {pool.submit(_plan, candidate): candidate for candidate in missing}
        for future in as_completed(futures):
            candidate = futures[future]
            try:
                report = future.result()
            except (UserError, jax.errors.JaxRuntimeError, NotImplementedError) as error:
                report_progress(candidate.name, str(error).splitlines()[0])
                continue
            write_document(candidate.path(directory), report)
            reports[candidate.name] = candidate, report
            report_progress(candidate.name, "")
    return sorted(reports.values(), key=lambda pair: -speed(pair[1]))


def speed(report: PlanReport) -> float:
    """Tokens a second; 0 if the plan does not fit."""
    return report.step.tokens_per_second or 0.0 if report.step else 0.0


def _plan(candidate: Candidate) -> PlanReport:
    return plan(training_job(candidate.run, candidate.topology), candidate.topology, level=candidate.level)


def _abstract(mesh: MeshSettings) -> Any:
    return AbstractMesh(astuple(mesh), AXES)
