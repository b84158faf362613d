"""Which capabilities are selected, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.analysis.residual import newly_covered
from trace_jax.analysis.thresholds import needed
from trace_jax.contract.capability import AnalysisReport, CapabilityReport, Label, LabelRun, SelectedCapability
from trace_jax.contract.trajectory import Trajectory


@dataclass(frozen=True)
class Criteria:
    """When a capability is selected. A run passes if Cov >= ``min_coverage`` and Δ >= ``min_delta``.

    ``runs_share``: the share of all runs that must pass (8 of 10). ``min_support``: failed trajectories that a majority
    of runs calls LACKING. ``min_residual``: share of all failed trajectories that it covers and no better capability
    does. ``max_p``: Holm-adjusted permutation p-value of the mean Δ. Counts are compared exactly, see ``thresholds``.
    """

    min_coverage: float = 0.10
    min_delta: float = 0.20
    runs_share: float = 0.8
    min_support: int = 5
    min_residual: float = 0.05
    max_p: float = 0.05
    resamples: int = 2000
    permutations: int = 8000


DEFAULT_CRITERIA = Criteria()


def select(
    reports: Sequence[CapabilityReport],
    failures: dict[str, frozenset[str]],
    criteria: Criteria,
    *,
    runs: int,
    failed: int,
    passed: int,
) -> list[CapabilityReport]:
    """Fill in ``selected`` and ``reason``, best first: the residual coverage counts what better ones cover already.

    A distractor that passes covers nothing: no adapter is trained for it that would mend those failures.
    ``failures``: by capability, the failed trajectories that lack it; ``runs``: runs made, rejected ones included;
    ``failed`` and ``passed``: numbers of trajectories.
    """
    one_sided = "no failed episodes" if not failed else "no passed episodes to compare with" if not passed else ""
    passes = needed(criteria.runs_share, runs)
    reasons = {report.capability.name: _objection(report, criteria, passes, one_sided) for report in reports}
    passing = [
        report.capability.name for report in reports if not (reasons[report.capability.name] or report.distractor)
    ]
    verdicts = newly_covered([failures[name] for name in passing], criteria.min_residual, failed)
    for name, (new, kept) in zip(passing, verdicts, strict=True):
        if not kept:
            reasons[name] = (
                f"residual coverage {new}/{failed} < {criteria.min_residual:.2f}: its failures are covered by "
                f"better-ranked ones"
            )
    return [
        report.replace(
            selected=not reasons[report.capability.name],
            reason=reasons[report.capability.name] or _evidence(report),
        )
        for report in reports
    ]


def _objection(report: CapabilityReport, criteria: Criteria, passes: int, one_sided: str) -> str:
    """Why the capability is not selected, all causes named; empty if there is no reason against it.

    ``one_sided`` says what the sample has none of, if anything: nothing can be selected from it.
    """
    causes = [one_sided] if one_sided else []
    if report.runs_passed < passes:
        causes.append(
            f"{report.runs_passed}/{len(report.runs)} runs pass Cov >= {criteria.min_coverage:.2f} and "
            f"delta >= {criteria.min_delta:.2f}, {passes} needed: {shortfall(report, criteria)}"
        )
    if report.support < criteria.min_support:
        causes.append(f"support {report.support} < {criteria.min_support}")
    if report.p_value > criteria.max_p:
        causes.append(f"p = {report.p_value:.3f} > {criteria.max_p}: the outcome of other tasks would do as well")
    return "; ".join(causes)


def shortfall(report: CapabilityReport, criteria: Criteria) -> str:
    """By how much the mean Cov and the mean Δ are short of what is needed, or that they vary too much over the runs."""
    short = [
        f"{name} is {needed - value.mean:.2f} short"
        for name, value, needed in (
            ("Cov", report.coverage, criteria.min_coverage),
            ("delta", report.delta, criteria.min_delta),
        )
        if value.mean < needed
    ]
    return " and ".join(short) or "enough on average, but not stable over the runs"


def _evidence(report: CapabilityReport) -> str:
    return f"{report.runs_passed}/{len(report.runs)} runs pass, p = {report.p_value:.4f}, support {report.support}"


def selected_capabilities(
    report: AnalysisReport, runs: Sequence[LabelRun], trajectories: Sequence[Trajectory]
) -> tuple[SelectedCapability, ...]:
    """The selected ones in rank order, with the failed trajectories that most runs call LACKING (most votes first).

    A distractor is never trained for: if one passes, it stays in the report as a warning about the labels.
    """
    failed = {trajectory.id for trajectory in trajectories if not trajectory.broken and not trajectory.passed}
    votes: dict[str, dict[str, int]] = {}
    for run in runs:
        if str(run.run) in report.rejected_runs:
            continue
        for pair in run.labels:
            if pair.label is Label.LACKING and pair.trajectory in failed:
                tally = votes.setdefault(pair.capability, {})
                tally[pair.trajectory] = tally.get(pair.trajectory, 0) + 1
    chosen = [found for found in report.capabilities if found.selected and not found.distractor]
    return tuple(
        SelectedCapability(
            capability=found.capability,
            rank=rank,
            coverage=found.coverage,
            delta=found.delta,
            failed_examples=_most_voted(votes[found.capability.name]),
        )
        for rank, found in enumerate(chosen, start=1)
    )


def _most_voted(votes: dict[str, int]) -> tuple[str, ...]:
    """The ids in ``votes``, most votes first."""
    return tuple(sorted(votes, key=lambda name: (-votes[name], name)))
