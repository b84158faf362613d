"""What a user can name to be played: a target, an environment, or an environment manifest."""

from collections.abc import Callable
from dataclasses import dataclass

from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_document
from trace_jax.contract.trajectory import Split
from trace_jax.environments.host import Host, host_of
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.hosts.opened import in_workers, open_pool
from trace_jax.environments.hosts.pool import PoolHost
from trace_jax.environments.hosts.remote_target import NoTarget, RemoteTarget
from trace_jax.environments.protocol import Target, Task
from trace_jax.environments.registry import (
    check_target,
    environment_factory,
    is_environment,
    load_environment,
    load_target,
)
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError

# An environment has no splits of its own: training tasks begin where calibration begins, held-out ones beyond the seeds
# that calibration, training and the gate's prompts use.
FIRST_SEED: dict[Split, int] = {"train": 0, "held_out": 3_000_000}


HostOfDesign = Callable[[Design, Design | None], Host]  # of a design, and of the run's own target


def _in_this_process(design: Design, own: Design | None) -> Host:
    return InProcess(environment_factory(design, own))


@dataclass(frozen=True)
class Source:
    """Tasks, each an episode of a new environment. ``target`` is the target name in the trajectories.

    ``design`` is that of the manifest, or None if ``name`` is a target or an environment.
    """

    name: str
    target: str
    split: Split
    tasks: tuple[Task, ...]
    host: Host
    design: Design | None = None


def load_source(
    name: str,
    split: Split,
    tasks: int,
    settings: TargetSettings | None = None,
    *,
    host_of_design: HostOfDesign = _in_this_process,
) -> Source:
    """The first ``tasks`` tasks of ``split`` in the target, environment or manifest (``….json``) called ``name``.

    A target or environment is made with the parameters of ``settings`` and runs where these say: in this process
    without them. A manifest has its own parameters, and its design may name the target of ``settings``, and no other.
    ``host_of_design`` says where it runs; this process refuses a design that a language model wrote.

    Raises UserError, naming the value and the remedy, if there is no such thing or it has no such tasks.
    """
    if name.endswith(".json"):
        manifest = read_document(name, EnvironmentManifest)
        seeds = _seeds(manifest.name, split, tasks)
        host = host_of_design(manifest.design, None if settings is None else settings.design)
        return Source(manifest.name, manifest.target, split, seeds, host, manifest.design)
    if settings is not None and in_workers(settings):
        return _source_in_workers(name, split, tasks, settings)
    given = None if settings is None else settings.arguments()
    if is_environment(name):
        return Source(name, name, split, _seeds(name, split, tasks), InProcess(lambda: load_environment(name, given)))
    return target_source(load_target(name, given), name, split, tasks)


def _source_in_workers(name: str, split: Split, tasks: int, settings: TargetSettings) -> Source:
    pool = open_pool(settings, name)
    try:
        target = RemoteTarget(name, pool)
    except NoTarget:
        return Source(name, name, split, _seeds(name, split, tasks), PoolHost(pool, split))
    check_target(target, name)
    return target_source(target, name, split, tasks)


def target_source(target: Target, name: str, split: Split, tasks: int) -> Source:
    """The first ``tasks`` tasks of ``split`` of a target that is registered as ``name``."""
    listed = target.tasks(split)
    if tasks < 1 or not listed:
        raise UserError(f"{tasks} {split} tasks of {name!r}, which has {len(listed)}: at least 1 is needed")
    return Source(name, name, split, listed[:tasks], host_of(target, split))


def _seeds(name: str, split: Split, tasks: int) -> tuple[int, ...]:
    if tasks < 1:
        raise UserError(f"{tasks} {split} tasks of {name!r}: at least 1 is needed")
    return tuple(range(FIRST_SEED[split], FIRST_SEED[split] + tasks))
