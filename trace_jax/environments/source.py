"""What a user can name to be played: a target, an environment, or an environment manifest."""

from collections.abc import Callable
from dataclasses import dataclass

from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_document
from trace_jax.contract.trajectory import Split
from trace_jax.environments.protocol import Environment, Target, Task
from trace_jax.environments.registry import environment_factory, is_environment, load_environment, load_target
from trace_jax.errors import UserError

# An environment has no splits of its own: training tasks begin where calibration begins, held-out ones beyond the seeds
# that calibration, training and the gate's prompts use.
FIRST_SEED: dict[Split, int] = {"train": 0, "held_out": 3_000_000}


@dataclass(frozen=True)
class Source:
    """Tasks, each an episode of a new environment. ``target`` is the target name in the trajectories.

    ``design`` is that of the manifest, or None if ``name`` is a target or an environment.
    """

    name: str
    target: str
    split: Split
    tasks: tuple[Task, ...]
    environment: Callable[[], Environment]
    design: Design | None = None


def load_source(name: str, split: Split, tasks: int, own: Design | None = None) -> Source:
    """The first ``tasks`` tasks of ``split`` in the target, environment or manifest (``….json``) called ``name``.

    ``own`` is how the run's target is built. A design may name no other; its parameters are those of a target or
    environment called ``name``.

    Raises UserError, naming the value and the remedy, if there is no such thing or it has no such tasks.
    """
    if name.endswith(".json"):
        manifest = read_document(name, EnvironmentManifest)
        seeds = _seeds(manifest.name, split, tasks)
        return Source(
            manifest.name, manifest.target, split, seeds, environment_factory(manifest.design, own), manifest.design
        )
    parameters = None if own is None else own.parameters
    if is_environment(name):
        return Source(name, name, split, _seeds(name, split, tasks), lambda: load_environment(name, parameters))
    return target_source(load_target(name, parameters), name, split, tasks)


def target_source(target: Target, name: str, split: Split, tasks: int) -> Source:
    """The first ``tasks`` tasks of ``split`` of a target that is registered as ``name``."""
    listed = target.tasks(split)
    if tasks < 1 or not listed:
        raise UserError(f"{tasks} {split} tasks of {name!r}, which has {len(listed)}: at least 1 is needed")
    return Source(name, name, split, listed[:tasks], lambda: target.environment(split))


def _seeds(name: str, split: Split, tasks: int) -> tuple[int, ...]:
    if tasks < 1:
        raise UserError(f"{tasks} {split} tasks of {name!r}: at least 1 is needed")
    return tuple(range(FIRST_SEED[split], FIRST_SEED[split] + tasks))
