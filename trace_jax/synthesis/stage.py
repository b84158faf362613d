"""Stage 2, for one capability at a time: from selected to an environment manifest, or to FAILED with its reason.

outcome = synthesise(selected, RulesDesigner(), "helpdesk", target, rollout, SynthesisConfig(), directory)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from etils import epath

from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.digest import log_checksum
from trace_jax.contract.environment import Attempt, Calibration, Design, EnvironmentManifest
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import Target
from trace_jax.errors import UserError
from trace_jax.synthesis.calibration import Window, calibrate, judge
from trace_jax.synthesis.designer import Brief, Designer, DesignError, make_brief
from trace_jax.synthesis.isolated import run_isolated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SynthesisConfig:
    """How thoroughly to check and calibrate. ``groups`` seeds × ``group_size`` base rollouts are spent a round."""

    groups: int = 16
    group_size: int = 8
    rounds: int = 5
    gate_seeds: int = 16
    gate_seconds: float = 120.0  # for all gates of one design
    seed: int = 0
    window: Window = Window()


class Rollout(Protocol):
    """Rolls the base policy out at temperature 1: ``group_size`` trajectories for each seed, in the order of seeds."""

    def __call__(self, design: Design, seeds: Sequence[int], group_size: int) -> list[list[Trajectory]]: ...


def synthesise(
    selected: SelectedCapability,
    designer: Designer,
    target_name: str,
    target: Target,
    rollout: Rollout,
    config: SynthesisConfig,
    directory: PathLike,
    recorded: PathLike | None = None,
) -> EnvironmentManifest | SelectedCapability:
    """A validated and calibrated environment for ``selected``, or the capability as FAILED with the reason.

    Either is written to ``directory`` and read back from there by a second call, which then spends nothing. The
    manifest vouches for ``recorded``, the JSON Lines in which ``rollout`` keeps what it plays. What goes
    wrong with a design is the designer's to mend or the capability's end; what ``rollout`` raises propagates.
    """
    name = selected.capability.name
    written = epath.Path(directory) / f"{name}.json"
    failed = epath.Path(directory) / f"{name}.failed.json"
    if written.exists():
        return _same(read_document(written, EnvironmentManifest), name, target_name, written)
    if failed.exists():
        return read_document(failed, SelectedCapability)

    brief = make_brief(selected.capability, target_name, target)
    attempts: tuple[Attempt, ...] = ()
    try:
        for number in range(config.rounds):
            design = designer.design(brief, attempts)
            attempts += (_attempt(number, design, brief, rollout, config),)
            last = attempts[-1]
            log.info("%s, round %d: %s", name, number, last.feedback)
            if last.calibration is not None and judge(last.calibration, config.window).accepted:
                manifest = EnvironmentManifest(
                    name=name,
                    capability=name,
                    target=target_name,
                    designer=designer.name,
                    design=design,
                    gates=last.gates,
                    calibration=last.calibration,
                    attempts=attempts,
                    rollouts=rollouts_spent(attempts),
                    recorded=None if recorded is None else log_checksum(recorded),
                )
                write_document(written, manifest)
                return manifest
        raise DesignError(f"no environment accepted in {config.rounds} rounds; the last was {attempts[-1].feedback}")
    except DesignError as error:
        spent = rollouts_spent(attempts)
        reason = f"{error} ({len(attempts)} rounds, {spent} rollouts)"
        lost = selected.replace(status=Status.FAILED, reason=reason, rollouts=spent)
        write_document(failed, lost)
        log.warning("capability %s FAILED: %s", name, reason)
        return lost


def rollouts_spent(attempts: Sequence[Attempt]) -> int:
    """Base rollouts that the calibrations of ``attempts`` took, broken ones included."""
    return sum(a.calibration.groups * a.calibration.group_size for a in attempts if a.calibration is not None)


def _attempt(number: int, design: Design, brief: Brief, rollout: Rollout, config: SynthesisConfig) -> Attempt:
    first = (config.seed * config.rounds + number) * max(config.groups, config.gate_seeds)  # fresh seeds every round
    gates = run_isolated(design, brief, range(first, first + config.gate_seeds), config.gate_seconds)
    refused = [check for check in gates if not check.passed]
    if refused:
        feedback = "; ".join(f"gate {check.name} failed: {check.detail}" for check in refused)
        return Attempt(round=number, design=design, gates=gates, calibration=None, feedback=feedback)
    seeds = range(first, first + config.groups)
    calibration, errors = _calibrate(design, seeds, rollout, config)
    feedback = judge(calibration, config.window).feedback
    if errors:
        feedback += f"; the first broken rollout said: {errors[0]}"
    return Attempt(
        round=number, design=design, gates=gates, calibration=calibration, seeds=tuple(seeds), feedback=feedback
    )


def _calibrate(
    design: Design, seeds: Sequence[int], rollout: Rollout, config: SynthesisConfig
) -> tuple[Calibration, list[str]]:
    groups = rollout(design, seeds, config.group_size)
    sizes = [len(group) for group in groups]
    if sizes != [config.group_size] * len(seeds):
        raise UserError(f"calibration rollouts came as groups of {sizes}: wanted {len(seeds)} of {config.group_size}")
    errors = [trajectory.error for group in groups for trajectory in group if trajectory.error is not None]
    return calibrate([[trajectory.reward for trajectory in group] for group in groups]), errors


def _same(manifest: EnvironmentManifest, name: str, target: str, path: epath.Path) -> EnvironmentManifest:
    if (manifest.capability, manifest.target) != (name, target):
        raise UserError(
            f"{path}: made for {manifest.capability} on {manifest.target}, wanted {name} on {target}: remove the file, "
            "or choose a new work directory"
        )
    return manifest
