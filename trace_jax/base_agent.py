"""The base model as the agent of the first two stages: what it plays is kept on disk."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.digest import check_log
from trace_jax.contract.environment import Design, EnvironmentManifest, calibration_path
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.protocol import Engine, Sampling
from trace_jax.environments.registry import environment_factory
from trace_jax.environments.source import Source
from trace_jax.errors import UserError
from trace_jax.models.decoder import Decoder
from trace_jax.rollout.agent import EpisodeSpec, Limits
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.recording import Recording
from trace_jax.training.collection import Group

Tick = Callable[[Trajectory], None]


@dataclass(frozen=True)
class Agent:
    """The base model and what it takes to play it."""

    decoder: Decoder
    revision: str
    renderer: Renderer
    engine: Engine
    limits: Limits
    max_turn_tokens: int
    concurrency: int
    temperature: float = 1.0  # of the base's own rollouts: the analysis' and the calibrations'

    def play(self, specs: Sequence[EpisodeSpec], recording: Recording, tick: Tick) -> list[Trajectory]:
        """The episodes of ``specs`` in their order; those that ``recording`` misses are played and appended."""
        return recording.collect(specs, self.engine, self.renderer, self.limits, self.revision, self.concurrency, tick)


def roll_out(
    agent: Agent, source: Source, trials: int, seed: int, recording: Recording, tick: Tick
) -> list[Trajectory]:
    """``trials`` base episodes on each task of ``source``, kept in ``recording``."""
    specs = plan_episodes(
        source, trials, max_turn_tokens=agent.max_turn_tokens, temperature=agent.temperature, seed=seed
    )
    return agent.play(specs, recording, tick)


def calibrate_on(
    agent: Agent,
    capability: str,
    target: str,
    seed: int,
    path: Path,
    tick: Tick,
    design: Design,
    seeds: Sequence[int],
    group_size: int,
) -> list[list[Trajectory]]:
    """``group_size`` base episodes of ``design`` on each of its ``seeds``, appended to ``path``."""
    specs = [
        EpisodeSpec(
            id=f"{_group_id(capability, design, number)}/{trial}",
            environment=environment_factory(design),
            target=target,
            task=f"{capability}/{number}",
            split="train",
            seed=number,
            trial=trial,
            sampling=Sampling(agent.max_turn_tokens, agent.temperature, seed * 7919 + number * 101 + trial),
        )
        for number in seeds
        for trial in range(group_size)
    ]
    played = agent.play(specs, Recording(path), tick)
    return [played[i : i + group_size] for i in range(0, len(played), group_size)]


def calibration_groups(manifest: EnvironmentManifest, directory: Path) -> list[Group]:
    """What the base did when the environment was accepted, one group a seed; ``directory`` holds the manifest.

    Groups of broken rollouts alone are left out. Raises UserError when the rollouts are not all there, or are not those
    that the manifest was made from.
    """
    seeds = manifest.attempts[-1].seeds if manifest.attempts else ()
    if not seeds or manifest.calibration is None:
        return []
    played: dict[str, list[Trajectory]] = {_group_id(manifest.capability, manifest.design, seed): [] for seed in seeds}
    path = calibration_path(directory, manifest.capability)
    if manifest.recorded is not None:
        check_log(
            path, manifest.recorded, f"manifest {manifest.name}", "restore the file, or remove it with the manifest"
        )
    for trajectory in read_episodes(path):
        group = trajectory.id.rpartition("/")[0]
        if group in played:
            played[group].append(trajectory)
    wanted = manifest.calibration.group_size
    for name, rollouts in played.items():
        if len(rollouts) != wanted:
            raise UserError(
                f"{path} holds {len(rollouts)} of the {wanted} rollouts {name}, with which {manifest.name} was "
                "accepted: restore the file, or remove it with the manifest to calibrate anew"
            )
    groups = [Group(tuple(sorted(rollouts, key=lambda one: one.trial))) for rollouts in played.values()]
    return [group for group in groups if group.graded]


def _group_id(capability: str, design: Design, seed: int) -> str:
    """What the ids of one group's rollouts begin with: another design never takes them for its own."""
    digest = hashlib.sha256(design.model_dump_json().encode()).hexdigest()[:8]
    return f"calibration/{capability}/{digest}/{seed}"
