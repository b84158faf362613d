"""Trains adapters, all together on one frozen base, on one device or on a mesh of many machines.

    python -m launch.train --config=configs/X.py --workdir=DIR --environments=RUN/environments
    python -m launch.train --config=configs/X.py --workdir=DIR --target=helpdesk

There is one adapter for each environment manifest (files, or directories of them), and one for the tasks of
``--target``. Each is written to DIR/adapters/NAME.

On several machines, run the same command on each with ``--distributed``. On GPUs and CPUs each process also needs
--coordinator_address=HOST:PORT --num_processes=N --process_id=I. The first process plays episodes and writes files. All
processes share DIR.

After SIGTERM the program gives up the rollouts of a step, or finishes its update. It ends with status 143 when the last
checkpoint is complete. The same command then continues, also on another ``--config.mesh`` or number of processes.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

from absl import flags
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from launch.inputs import manifest_paths
from trace_jax.contract.adapter import MANIFEST
from trace_jax.contract.environment import EnvironmentManifest, calibration_path
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.lock import locked
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.engines.protocol import Engine
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.models.formats.huggingface import load
from trace_jax.parallel import processes
from trace_jax.parallel.mesh import make_mesh
from trace_jax.parallel.termination import Termination
from trace_jax.pipeline.jobs import adapter_job, target_job
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.session import Base, load_base, open_session
from trace_jax.telemetry.progress import Progress
from trace_jax.training.job import Job, StepReport
from trace_jax.training.settings import GRPOConfig, check_sampling
from trace_jax.training.trainer import train

ENVIRONMENTS = flags.DEFINE_list("environments", [], "environment manifests, or directories of them")
TARGET = flags.DEFINE_string("target", None, "train on this target's own tasks: a registered name, or module:Class")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join other processes that run the same command")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0; TPUs find it by themselves")
PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes; TPUs find it by themselves")
PROCESS = flags.DEFINE_integer("process_id", None, "number of this process, from 0; TPUs find it by themselves")
TIMEOUT = flags.DEFINE_integer("initialization_timeout", 300, "seconds in which all processes must have joined")

# Settings that may change when a run continues. They affect only its speed, the checkpoints that it keeps, and
# rounding.
_FREE = (
    "keep_best",
    "keep_period",
    "max_mismatch",
    "max_to_keep",
    "micro_batch_tokens",
    "remat",
    "row_tokens",
    "save_steps",
)
_ROLLOUT = ("temperature", "max_turns", "max_episode_tokens", "max_turn_tokens", "max_seconds")


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Train the adapters that are not trained yet."""
    settings = read_settings(config)
    check_sampling(settings.rollout)
    _check()
    if DISTRIBUTED.value:
        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value, TIMEOUT.value)
    with Termination() as termination, ExitStack() as stack:
        command_line = [config.to_json_best_effort(), str(workdir), ENVIRONMENTS.value, TARGET.value]
        processes.require_same("the command line", json.dumps(command_line).encode())
        processes.require_shared(workdir)
        processes.from_first(lambda: stack.enter_context(locked(workdir)) or b"")
        mesh = make_mesh(settings.mesh)
        base = load_base(settings, mesh)
        jobs = _jobs(settings, base, workdir)
        processes.from_first(lambda: os.fsencode(open_workdir(workdir, _fixed(settings, base))))
        jobs = _unfinished(jobs)
        if not jobs:
            print(f"{workdir}: every adapter is trained")
            return
        engine = _engine(settings, base, mesh, len(jobs)) if processes.is_first() else None
        with _progress(jobs, settings.training) as report:
            manifests = train(
                jobs,
                decoder=base.decoder,
                engine=engine,
                renderer=base.renderer,
                training=settings.training,
                rollout=settings.rollout,
                seed=settings.seed,
                base=base.revision,
                mesh=mesh,
                termination=termination,
                telemetry=settings.telemetry,
                progress=report,
            )
    if processes.is_first():
        for job, manifest in zip(jobs, manifests, strict=True):
            reward = manifest.metrics.get("reward/mean", float("nan"))
            print(f"{job.directory}: {manifest.steps} steps, {manifest.rollouts} rollouts, mean reward {reward:.3f}")


def _check() -> None:
    """Refuse invalid flags before anything is loaded."""
    if not ENVIRONMENTS.value and TARGET.value is None:
        raise UserError("nothing to train on: give --environments=MANIFEST,… or --target=NAME")
    given = [flag.name for flag in (COORDINATOR, PROCESSES, PROCESS) if flag.value is not None]
    if given and not DISTRIBUTED.value:
        raise UserError(f"--{given[0]} without --distributed: add that flag, or leave out this one")


def _fixed(settings: RunSettings, base: Base) -> dict[str, object]:
    """The settings that identify a work directory. Mesh, engine and number of processes are not among them."""
    training = {name: value for name, value in asdict(settings.training).items() if name not in _FREE}
    rollout = {name: getattr(settings.rollout, name) for name in _ROLLOUT}
    model = {"revision": base.revision, "dtype": settings.base.dtype}
    return {"seed": settings.seed, "base": model, "training": training, "rollout": rollout}


def _jobs(settings: RunSettings, base: Base, workdir: epath.Path) -> list[Job]:
    """The jobs: one for each environment, then the target's."""
    jobs: list[Job] = []
    for path in manifest_paths(ENVIRONMENTS.value):
        manifest = read_document(path, EnvironmentManifest)
        calibrated_by = _calibrated_by(manifest, path)
        here = calibrated_by == base.revision
        if calibrated_by is not None and not here and processes.is_first():
            print(f"{manifest.name}: calibrated by another base; its calibration rollouts are not trained on")
        directory = workdir / "adapters" / manifest.name
        job = adapter_job(
            [manifest],
            path.parent,
            manifest.name,
            directory,
            own=settings.target.design,
            sandbox=settings.sandbox,
            calibrated_here=here,
        )
        jobs.append(job)
    if TARGET.value is not None:
        target = open_target(settings.target, TARGET.value)
        tasks = target_source(target, TARGET.value, "train", settings.target.train_tasks).tasks
        name = f"grpo_on_{target.name}"
        jobs.append(target_job(target, TARGET.value, tasks, name, workdir / "adapters" / name))
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two environments are called {name}: adapters have the same names, so leave one out")
    seen = [(job.name, job.capabilities, [g.rollouts[0].id for g in job.recorded]) for job in jobs]
    processes.require_same("what --environments holds", json.dumps(seen).encode())
    return jobs


def _calibrated_by(manifest: EnvironmentManifest, path: epath.Path) -> str | None:
    """The base that calibrated an environment; None without the calibration rollouts in the manifest's directory."""
    rollouts = calibration_path(path.parent, manifest.capability)
    first = next(read_records(rollouts, Trajectory), None) if rollouts.exists() else None
    return None if first is None else first.policy.base


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    def missing() -> bytes:
        return json.dumps([not (epath.Path(job.directory) / MANIFEST).exists() for job in jobs]).encode()

    return [job for job, wanted in zip(jobs, json.loads(processes.from_first(missing)), strict=True) if wanted]


def _engine(settings: RunSettings, base: Base, mesh: Mesh, adapters: int) -> Engine:
    """The engine. An embedded engine decodes on the first device; on a mesh it loads a second, whole base there."""
    if mesh.size > 1 and settings.engine.kind == "embedded":
        base = replace(base, decoder=load(settings.base.path, settings.base.dtype)[0])
    return open_session(settings, base, adapters=adapters).engine


@contextmanager
def _progress(jobs: Sequence[Job], config: GRPOConfig) -> Iterator[Callable[[StepReport], None] | None]:
    """A bar for each job, in the first process."""
    if not processes.is_first():
        yield None
        return
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        bars = {
            job.name: stack.enter_context(progress.stage(f"training {job.name}", config.most_steps)) for job in jobs
        }

        def report(step: StepReport) -> None:
            bar = bars[step.name]
            bar.advance(step.counters.step - bar.done, step.metrics.get("reward/mean"), step.tokens)

        yield report


if __name__ == "__main__":
    with processes.together():
        run(main, exclusive=False)
