"""Label runs → one report a capability, and which capabilities are selected (MISSION, analysis 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.agreement import krippendorff_alpha
from trace_jax.analysis.partition import code_table, partition_fault
from trace_jax.analysis.resample import bootstrap, permutation_p_values
from trace_jax.analysis.residual import newly_covered
from trace_jax.analysis.statistics import LACKING, PRESENT, UNSEEN
from trace_jax.contract.capability import (
    AnalysisReport,
    Candidates,
    CapabilityReport,
    Interval,
    LabelRun,
    RunStatistics,
    SelectedCapability,
)
from trace_jax.contract.trajectory import Trajectory


@dataclass(frozen=True)
class Criteria:
    """When a capability is selected. ``min_*`` of a run: Cov >= ρ and Δ >= δ; ``runs_needed`` runs must pass.

    ``min_support``: failed trajectories that a majority of runs calls LACKING. ``min_residual``: share of all failed
    trajectories that no better capability covers. ``max_p``: Holm-adjusted permutation p-value of the mean Δ.
    """

    min_coverage: float = 0.10
    min_delta: float = 0.20
    runs_needed: int = 8
    min_support: int = 5
    min_residual: float = 0.05
    max_p: float = 0.05
    resamples: int = 2000
    permutations: int = 8000


DEFAULT_CRITERIA = Criteria()


def aggregate(
    candidates: Candidates,
    runs: Sequence[LabelRun],
    trajectories: Sequence[Trajectory],
    criteria: Criteria,
    seed: int,
) -> AnalysisReport:
    """Recompute all counts from the labels, test, rank by mean Δ and select. Runs with a broken partition are left
    out."""
    graded = [trajectory for trajectory in trajectories if not trajectory.broken]
    ids = [trajectory.id for trajectory in graded]
    rejected = {run.run: fault for run in runs if (fault := partition_fault(run, candidates, set(ids)))}
    accepted = [run for run in runs if run.run not in rejected]
    codes_RNC = code_table(accepted, candidates, ids)
    failed_N = np.array([not trajectory.passed for trajectory in graded], dtype=bool)
    tasks = [trajectory.task for trajectory in graded]
    reports: list[CapabilityReport] = []
    if graded:
        cover_BC, delta_BC = bootstrap(codes_RNC, failed_N, tasks, criteria.resamples, seed)
        lacked_C = np.array([_majority_lacking(codes_RNC[:, :, c]).sum() for c in range(codes_RNC.shape[2])])
        testable_C = lacked_C >= criteria.min_support
        p_C = permutation_p_values(codes_RNC, failed_N, tasks, testable_C, criteria.permutations, seed + 1)
        for column, candidate in enumerate(candidates.all):
            statistics = tuple(
                _run_statistics(run.run, codes_RNC[row, :, column], failed_N, criteria)
                for row, run in enumerate(accepted)
            )
            reports.append(
                CapabilityReport(
                    capability=candidate,
                    distractor=column >= len(candidates.capabilities),
                    runs=statistics,
                    runs_passed=sum(one.selected for one in statistics),
                    coverage=_interval([one.coverage for one in statistics], cover_BC[:, column]),
                    delta=_interval([one.delta for one in statistics], delta_BC[:, column]),
                    p_value=float(p_C[column]),
                    agreement=krippendorff_alpha(codes_RNC[:, :, column]),
                    support=int((_majority_lacking(codes_RNC[:, :, column]) & failed_N).sum()),
                    selected=False,
                    reason="",
                )
            )
        reports.sort(key=lambda report: (-report.delta.mean, report.capability.name))
        reports = _select(
            reports, _lacking_failures(reports, candidates, codes_RNC, failed_N, ids), criteria, int(failed_N.sum())
        )
    return AnalysisReport(
        capabilities=tuple(reports),
        rejected_runs={str(number): fault for number, fault in rejected.items()},
        passed=int((~failed_N).sum()),
        failed=int(failed_N.sum()),
        broken=len(trajectories) - len(graded),
    )


def _run_statistics(
    run: int, codes_N: NDArray[np.int8], failed_N: NDArray[np.bool_], criteria: Criteria
) -> RunStatistics:
    def count(code: int, among: NDArray[np.bool_]) -> int:
        return int(((codes_N == code) & among).sum())

    seen = codes_N != UNSEEN
    lacking_failed, present_failed = count(LACKING, failed_N), count(PRESENT, failed_N)
    lacking_passed, present_passed = count(LACKING, ~failed_N), count(PRESENT, ~failed_N)
    failed = int((seen & failed_N).sum())
    coverage = lacking_failed / failed if failed else 0.0
    rate_failed = _rate(lacking_failed, present_failed)
    rate_passed = _rate(lacking_passed, present_passed)
    delta = rate_failed - rate_passed
    return RunStatistics(
        run=run,
        lacking_failed=lacking_failed,
        present_failed=present_failed,
        lacking_passed=lacking_passed,
        present_passed=present_passed,
        failed=failed,
        passed=int((seen & ~failed_N).sum()),
        coverage=coverage,
        error_rate_failed=rate_failed,
        error_rate_passed=rate_passed,
        delta=delta,
        selected=coverage >= criteria.min_coverage and delta >= criteria.min_delta,
    )


def _rate(lacking: int, present: int) -> float:
    return lacking / (lacking + present) if lacking + present else 0.0


def _interval(points: Sequence[float], resampled_B: NDArray[np.float64]) -> Interval:
    """Mean over runs with the 95 % percentile interval over resampled tasks."""
    low, high = np.percentile(resampled_B, [2.5, 97.5])
    return Interval(mean=float(np.mean(points)) if points else 0.0, low=float(low), high=float(high))


def _majority_lacking(codes_RN: NDArray[np.int8]) -> NDArray[np.bool_]:
    """True where more than half of the runs that saw the trajectory call it LACKING."""
    return 2 * (codes_RN == LACKING).sum(axis=0) > (codes_RN != UNSEEN).sum(axis=0)


def _lacking_failures(
    reports: Sequence[CapabilityReport],
    candidates: Candidates,
    codes_RNC: NDArray[np.int8],
    failed_N: NDArray[np.bool_],
    ids: Sequence[str],
) -> dict[str, frozenset[str]]:
    column = {candidate.name: number for number, candidate in enumerate(candidates.all)}
    found = {}
    for report in reports:
        lacking_N = _majority_lacking(codes_RNC[:, :, column[report.capability.name]]) & failed_N
        found[report.capability.name] = frozenset(name for name, hit in zip(ids, lacking_N, strict=True) if hit)
    return found


def _select(
    reports: Sequence[CapabilityReport], failures: dict[str, frozenset[str]], criteria: Criteria, failed: int
) -> list[CapabilityReport]:
    """Fill in ``selected`` and ``reason``, best first, so that the residual pass knows what is kept already."""
    reasons = {report.capability.name: _objection(report, criteria) for report in reports}
    passing = [report.capability.name for report in reports if not reasons[report.capability.name]]
    verdicts = newly_covered([failures[name] for name in passing], criteria.min_residual, failed)
    for name, (new, kept) in zip(passing, verdicts, strict=True):
        if not kept:
            reasons[name] = (
                f"residual coverage {new}/{failed} < {criteria.min_residual:.2f}: its failures are covered by "
                f"better-ranked ones"
            )
    settled = []
    for report in reports:
        reason = reasons[report.capability.name]
        fields = {**dict(report), "selected": not reason, "reason": reason or _praise(report)}
        settled.append(CapabilityReport.model_validate(fields))
    return settled


def _objection(report: CapabilityReport, criteria: Criteria) -> str:
    """Why the capability is not selected, all causes named; empty if nothing stands against it."""
    causes = []
    if report.runs_passed < criteria.runs_needed:
        causes.append(
            f"{report.runs_passed}/{len(report.runs)} runs pass Cov >= {criteria.min_coverage:.2f} and "
            f"delta >= {criteria.min_delta:.2f}, {criteria.runs_needed} needed"
        )
    if report.support < criteria.min_support:
        causes.append(f"support {report.support} < {criteria.min_support}")
    if report.p_value > criteria.max_p:
        causes.append(f"p = {report.p_value:.3f} > {criteria.max_p}: the outcome of other tasks would do as well")
    return "; ".join(causes)


def _praise(report: CapabilityReport) -> str:
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
            if pair.label == "LACKING" and pair.trajectory in failed:
                tally = votes.setdefault(pair.capability, {})
                tally[pair.trajectory] = tally.get(pair.trajectory, 0) + 1
    chosen = [one for one in report.capabilities if one.selected and not one.distractor]
    return tuple(
        SelectedCapability(
            capability=one.capability,
            rank=rank,
            coverage=one.coverage,
            delta=one.delta,
            failed_examples=tuple(
                sorted(votes[one.capability.name], key=lambda name: (-votes[one.capability.name][name], name))
            ),
        )
        for rank, one in enumerate(chosen, start=1)
    )
