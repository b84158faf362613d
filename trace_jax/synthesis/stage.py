"""Stage 2, for one capability: a selected capability becomes an environment manifest, or FAILED with a reason."""

import logging
from collections.abc import Sequence
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
from trace_jax.synthesis.disjoint import Conversations, conversations
from trace_jax.synthesis.isolated import run_isolated
from trace_jax.synthesis.kinds import Evidence
from trace_jax.synthesis.prompt_gates import NO_PROMPTS
from trace_jax.synthesis.settings import SynthesisSettings

log = logging.getLogger(__name__)

ACCEPTED = Window()


class Rollout(Protocol):
    """Plays the base policy: ``group_size`` trajectories for each seed, in the order of seeds."""

    def __call__(self, design: Design, seeds: Sequence[int], group_size: int) -> list[list[Trajectory]]: ...


def synthesise(
    selected: SelectedCapability,
    *,
    designer: Designer,
    target: Target,
    own: Design,
    rollout: Rollout,
    settings: SynthesisSettings,
    seed: int,
    directory: PathLike,
    evidence: Sequence[Trajectory] = (),
    recorded: PathLike | None = None,
    window: Window = ACCEPTED,
) -> EnvironmentManifest | SelectedCapability:
    """A validated and calibrated environment for ``selected``, or the capability as FAILED with the reason.

    The outcome is written to ``directory``. A second call reads it from there, and spends no rollouts. A design that
    fails goes back to the designer, until that gives up; an error of ``rollout`` is raised.

    Args:
        own: how ``target`` is built: its name in the registry, and its parameters.
        seed: of the run; every round takes new seeds of the environment from it.
        evidence: the episodes of the analysis, which tell the kinds of requests that the base fails at.
        recorded: the JSON Lines in which ``rollout`` keeps its episodes; the manifest holds their digest.
        window: the accepted range of the calibration.
    """
    name = selected.capability.name
    written = epath.Path(directory) / f"{name}.json"
    failed = epath.Path(directory) / f"{name}.failed.json"
    if written.exists():
        return _same(read_document(written, EnvironmentManifest), name, own.entry_point, written)
    if failed.exists():
        return read_document(failed, SelectedCapability)

    brief = make_brief(selected.capability, own, target, Evidence(evidence, frozenset(selected.failed_examples)))
    tasks = conversations(target)
    attempts: tuple[Attempt, ...] = ()
    try:
        for number in range(settings.max_rounds):
            design = designer.design(brief, attempts)
            attempts += (_attempt(design, brief, tasks, rollout, settings, number=number, seed=seed, window=window),)
            last = attempts[-1]
            log.info("%s, round %d: %s", name, number, last.feedback)
            if last.verdict == "accepted":
                manifest = EnvironmentManifest(
                    name=name,
                    capability=name,
                    target=own.entry_point,
                    designer=designer.name,
                    design=design,
                    gates=last.gates,
                    calibration=last.calibration,
                    attempts=attempts,
                    rollouts=rollouts_spent(attempts),
                    recorded=None if recorded is None else log_checksum(recorded),
                )
                write_document(written, manifest)
                if any(check.detail == NO_PROMPTS for check in last.gates):
                    log.warning("environment %s: %s", name, NO_PROMPTS)
                return manifest
        raise DesignError(
            f"no environment accepted in {settings.max_rounds} rounds; the last was {attempts[-1].feedback}"
        )
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


def _attempt(
    design: Design,
    brief: Brief,
    tasks: Conversations,
    rollout: Rollout,
    settings: SynthesisSettings,
    *,
    number: int,
    seed: int,
    window: Window,
) -> Attempt:
    groups, gate_seeds = settings.calibration_groups, settings.gate_seeds
    first = (seed * settings.max_rounds + number) * max(groups, gate_seeds)  # every round has new seeds
    gates = run_isolated(design, brief, range(first, first + gate_seeds), settings.gate_seconds, tasks)
    failed = [check for check in gates if not check.passed]
    if failed:
        return Attempt(
            round=number,
            design=design,
            gates=gates,
            calibration=None,
            verdict="gate failed",
            feedback="; ".join(f"gate {check.name} failed: {check.detail}" for check in failed),
        )
    seeds = range(first, first + groups)
    calibration, errors = _calibrate(design, seeds, rollout, settings.calibration_group_size)
    judgement = judge(calibration, window)
    return Attempt(
        round=number,
        design=design,
        gates=gates,
        calibration=calibration,
        seeds=tuple(seeds),
        verdict=judgement.verdict,
        feedback=judgement.feedback + (f"; the first broken rollout said: {errors[0]}" if errors else ""),
    )


def _calibrate(
    design: Design, seeds: Sequence[int], rollout: Rollout, group_size: int
) -> tuple[Calibration, list[str]]:
    """The calibration, and the errors of its broken rollouts."""
    groups = rollout(design, seeds, group_size)
    sizes = [len(group) for group in groups]
    if sizes != [group_size] * len(seeds):
        raise UserError(f"calibration rollouts came as groups of {sizes}: wanted {len(seeds)} of {group_size}")
    errors = [trajectory.error for group in groups for trajectory in group if trajectory.error is not None]
    return calibrate([[trajectory.reward for trajectory in group] for group in groups]), errors


def _same(manifest: EnvironmentManifest, name: str, target: str, path: epath.Path) -> EnvironmentManifest:
    if (manifest.capability, manifest.target) != (name, target):
        raise UserError(
            f"{path}: made for {manifest.capability} on {manifest.target}, wanted {name} on {target}: remove the file, "
            "or choose a new work directory"
        )
    return manifest
