"""One attempt: a design goes through the gates, and if it passes them through the calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from trace_jax.contract.environment import Attempt, Calibration, Design, Verdict
from trace_jax.contract.episodes import broken_by_server
from trace_jax.contract.trajectory import Check, Trajectory
from trace_jax.errors import EngineError, UserError
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.synthesis.calibration import Window, calibrate, judge
from trace_jax.synthesis.designer import Brief
from trace_jax.synthesis.differential import VariedRollout, differential
from trace_jax.synthesis.disjoint import Conversations
from trace_jax.synthesis.examples import PAGE_CHARACTERS, Page, shortened
from trace_jax.synthesis.hint_gates import NO_HINT
from trace_jax.synthesis.isolated import run_isolated
from trace_jax.synthesis.settings import SynthesisSettings

Groups = Sequence[Sequence[Trajectory]]


class ServerAway(EngineError):
    """So many rollouts were broken by a server that they say nothing about the design."""


class Rollout(Protocol):
    """Plays the base policy: ``group_size`` trajectories for each seed, in the order of seeds."""

    def __call__(self, design: Design, seeds: Sequence[int], group_size: int) -> list[list[Trajectory]]: ...


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Tries designs for one capability. Every round has new seeds of the environment, derived from ``seed``."""

    brief: Brief
    tasks: Conversations
    rollout: Rollout
    settings: SynthesisSettings
    seed: int
    window: Window
    page: Page | None
    sandbox: SandboxSettings

    def attempt(self, design: Design, number: int, candidate: int) -> Attempt:
        """Gates and calibration of the ``design`` of a candidate in round ``number``. Raises ServerAway."""
        groups, gate_seeds = self.settings.calibration_groups, self.settings.gate_seeds
        first = (self.seed * self.settings.max_rounds + number) * max(groups, gate_seeds)
        gates = run_isolated(
            design,
            self.brief,
            range(first, first + gate_seeds),
            self.settings.gate_seconds,
            self.tasks,
            sandbox=self.sandbox,
        )
        failed = [check for check in gates if not check.passed]
        if failed:
            return Attempt(
                round=number,
                candidate=candidate,
                design=design,
                gates=gates,
                calibration=None,
                verdict="gate failed",
                feedback="; ".join(f"gate {check.name} failed: {check.detail}" for check in failed),
            )
        seeds = range(first, first + groups)
        played = self._play(design, seeds)
        calibration = calibrate([[trajectory.reward for trajectory in group] for group in played])
        judgement = judge(calibration, self.window)
        if judgement.verdict == "broken":
            self._check_servers(played)
        errors = [trajectory.error for group in played for trajectory in group if trajectory.error is not None]
        shown = telling(played, judgement.verdict)
        compared, spent = self._compare(design, played, gates) if judgement.accepted else ((), 0)
        missed = [f"gate {check.name} failed: {check.detail}" for check in compared if not check.passed]
        return Attempt(
            round=number,
            candidate=candidate,
            design=design,
            gates=(*gates, *compared),
            calibration=calibration,
            seeds=tuple(seeds),
            verdict="gate failed" if missed else judgement.verdict,
            differential_rollouts=spent,
            feedback=("; ".join(missed) or judgement.feedback)
            + (f"; the first broken rollout said: {errors[0]}" if errors else "")
            + (f"; seed {shown.seed}: {_earned(played, shown)}" if shown is not None else ""),
            episode="" if shown is None or self.page is None else shortened(self.page(shown), PAGE_CHARACTERS),
        )

    def _compare(self, design: Design, base: Groups, gates: Sequence[Check]) -> tuple[tuple[Check, ...], int]:
        """The differential calibration on the first seeds of ``base``, and the rollouts that it took."""
        count, size = min(self.settings.differential_groups, len(base)), self.settings.calibration_group_size
        if not count:
            return (), 0
        seeds = [group[0].seed for group in base[:count]]
        rollout = cast(VariedRollout, self.rollout)
        weaker = rollout(design, seeds, size, variant="weaker")
        has_hint = any(check.name == "hint" and check.detail != NO_HINT for check in gates)
        hinted = rollout(design, seeds, size, variant="hinted") if has_hint else None
        return differential(base[:count], weaker, hinted), count * size * (1 + has_hint)

    def _play(self, design: Design, seeds: Sequence[int]) -> list[list[Trajectory]]:
        size = self.settings.calibration_group_size
        groups = self.rollout(design, seeds, size)
        sizes = [len(group) for group in groups]
        if sizes != [size] * len(seeds):
            raise UserError(f"calibration rollouts came as groups of {sizes}: wanted {len(seeds)} of {size}")
        return groups

    def _check_servers(self, groups: Groups) -> None:
        """Raise ServerAway if the calibration would not be broken without the rollouts that a server broke."""
        rollouts = [trajectory for group in groups for trajectory in group]
        lost = [trajectory for trajectory in rollouts if broken_by_server(trajectory)]
        own = sum(trajectory.broken for trajectory in rollouts) - len(lost)
        if lost and own <= self.window.most_broken * len(rollouts):
            raise ServerAway(f"{len(lost)} of {len(rollouts)} rollouts were broken by a server: {lost[0].error}")


def best_of(accepted: Sequence[Attempt], window: Window) -> Attempt:
    """The attempt whose mean reward is nearest to the middle of the window; of equal ones, that of the larger std."""
    middle = sum(window.mean_reward) / 2

    def key(attempt: Attempt) -> tuple[float, float]:
        found: Calibration | None = attempt.calibration
        assert found is not None, "accepted attempts were calibrated"
        return round(abs(found.mean_reward - middle), 9), -found.reward_std

    return min(accepted, key=key)


def telling(groups: Groups, verdict: Verdict) -> Trajectory | None:
    """An episode on the smallest seed whose group shows why a calibration ended with ``verdict``; None if accepted."""
    if verdict == "accepted":
        return None
    ordered = sorted(groups, key=lambda group: group[0].seed)
    if verdict == "broken":
        return next((each for group in ordered for each in group if each.broken), None)
    graded = [found for group in ordered if (found := [each for each in group if each.reward is not None])]
    if not graded:
        return None
    extreme = 1.0 if verdict == "too easy" else 0.0
    best = min(graded, key=lambda group: abs(sum(each.reward or 0.0 for each in group) / len(group) - extreme))
    return min(best, key=lambda each: abs((each.reward or 0.0) - extreme))


def _earned(groups: Groups, shown: Trajectory) -> str:
    group = next(group for group in groups if shown in group)
    rewards = " ".join("broken" if each.reward is None else f"{each.reward:g}" for each in group)
    return f"its rollouts earned {rewards}"
