"""Stage 2 of a run: an environment for each selected capability, in one directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trace_jax.analysis.compact import compact
from trace_jax.contract.capability import SelectedCapability
from trace_jax.contract.environment import EnvironmentManifest, calibration_path
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import Target
from trace_jax.pipeline.calibration import CalibrationRollouts
from trace_jax.session import Session
from trace_jax.synthesis.designer import Designer
from trace_jax.synthesis.stage import Postponed, synthesise
from trace_jax.synthesis.trials import ServerAway
from trace_jax.telemetry.progress import Progress

Made = EnvironmentManifest | SelectedCapability | Postponed


@dataclass(frozen=True)
class EnvironmentMaker:
    """Makes environments for capabilities of ``target``, and calibrates them with the base of ``session``.

    Attributes:
        directory: of the manifests and the calibration rollouts.
        episodes: of the analysis, which a designer may read.
    """

    session: Session
    target: Target
    designer: Designer
    directory: Path
    progress: Progress
    episodes: Callable[[], Sequence[Trajectory]]

    def make(self, selected: SelectedCapability) -> Made:
        """A manifest, the FAILED capability, or a postponed one. What the directory holds is not made again."""
        name, settings = selected.capability.name, self.session.settings
        rollouts = settings.synthesis.calibration_groups * settings.synthesis.calibration_group_size
        with self.progress.stage(f"synthesis of {name}", rollouts) as bar:
            path = calibration_path(self.directory, name)
            made = synthesise(
                selected,
                designer=self.designer,
                target=self.target,
                own=settings.target.design,
                rollout=CalibrationRollouts(self.session, name, settings.target.design, Path(path), bar.episode),
                settings=settings.synthesis,
                seed=settings.seed,
                directory=self.directory,
                evidence=self.episodes(),
                page=compact,
                recorded=path,
                sandbox=settings.sandbox,
            )
        if isinstance(made, SelectedCapability):
            self.progress.print(f"{name} FAILED: {made.reason}")
        elif isinstance(made, Postponed):
            self.progress.print(f"{name} waits for the next start: {made.reason}")
        return made


def check_postponed(made: Sequence[Made]) -> None:
    """Raise ServerAway if a capability waits for the next start: what follows needs all of them."""
    waiting = [each for each in made if isinstance(each, Postponed)]
    if waiting:
        names = ", ".join(each.selected.capability.name for each in waiting)
        raise ServerAway(f"{names}: {waiting[0].reason}: start again when it answers; nothing that is done is repeated")
