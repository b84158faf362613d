"""What the base plays of a design: its calibration, which is also the first batch of the adapter that trains on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trace_jax.contract.digest import check_log
from trace_jax.contract.environment import Design, EnvironmentManifest, calibration_path
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.hosts.hinted import HintedHost
from trace_jax.errors import UserError
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.spec import EpisodeSpec
from trace_jax.sandbox.designs import host_of_design
from trace_jax.session import Session
from trace_jax.synthesis.differential import WEAKER, Variant
from trace_jax.training.collection import Group


@dataclass(frozen=True)
class CalibrationRollouts:
    """Rolls the base out on designs for one capability, as ``synthesis.stage.Rollout``; all episodes are appended to
    the JSON Lines at ``path``."""

    session: Session
    capability: str
    target: Design  # how the run's own target is built
    path: Path
    on_episode: Callable[[Trajectory], None]

    def __call__(
        self, design: Design, seeds: Sequence[int], group_size: int, *, variant: Variant | None = None
    ) -> list[list[Trajectory]]:
        """``group_size`` episodes of ``design`` on each of its ``seeds``, one list a seed, by the base or a variant.

        The weaker base has a higher temperature, the hinted one has the hint in its system prompt.
        """
        settings = self.session.settings
        host = host_of_design(design, self.target, settings.sandbox)
        played_as = "" if variant is None else f"{variant}/"
        specs = [
            EpisodeSpec(
                id=f"{played_as}{_group_id(self.capability, design, seed)}/{trial}",
                host=HintedHost(host) if variant == "hinted" else host,
                target=self.target.entry_point,
                task=f"{self.capability}/{seed}",
                split="train",
                seed=seed,
                trial=trial,
                sampling=Sampling(
                    settings.rollout.max_turn_tokens,
                    settings.rollout.temperature + (WEAKER if variant == "weaker" else 0.0),
                    settings.seed * 7919 + seed * 101 + trial,
                ),
            )
            for seed in seeds
            for trial in range(group_size)
        ]
        played = self.session.play(specs, Recording(self.path), self.on_episode)
        return [played[i : i + group_size] for i in range(0, len(played), group_size)]


def calibration_groups(manifest: EnvironmentManifest, directory: Path) -> list[Group]:
    """What the base did when the environment was accepted, one group a seed; ``directory`` holds the manifest.

    Groups in which every rollout broke are left out. Raises UserError when rollouts are missing, or when they are not
    those that the manifest was made from.
    """
    seeds = next((a.seeds for a in reversed(manifest.attempts) if a.design == manifest.design and a.calibration), ())
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
    groups = [Group(tuple(sorted(rollouts, key=lambda rollout: rollout.trial))) for rollouts in played.values()]
    return [group for group in groups if group.graded]


def _group_id(capability: str, design: Design, seed: int) -> str:
    """The start of the ids of one group's rollouts. It holds a digest of the design: designs never share rollouts."""
    return f"calibration/{capability}/{design.sha256[:8]}/{seed}"
