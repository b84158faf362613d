"""Label runs → a report on each capability, and which capabilities are selected."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.agreement import krippendorff_alpha
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.partition import code_table, partition_fault
from trace_jax.analysis.resample import bootstrap, permutation_p_values
from trace_jax.analysis.select import Criteria, select
from trace_jax.analysis.statistics import LACKING, PRESENT, UNSEEN
from trace_jax.analysis.thresholds import exact, share
from trace_jax.contract.capability import (
    AnalysisReport,
    Candidate,
    Candidates,
    CapabilityReport,
    Interval,
    LabelRun,
    RunStatistics,
)
from trace_jax.contract.trajectory import Trajectory


def aggregate(
    candidates: Candidates,
    runs: Sequence[LabelRun],
    trajectories: Sequence[Trajectory],
    criteria: Criteria,
    seed: int,
) -> AnalysisReport:
    """Recompute all counts from the labels, test, rank by mean Δ, and select.

    A run that does not label every pair exactly once is rejected: its labels are not used, but it counts as a run.
    """
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
        known_C = np.array([_of_library(candidate) for candidate in candidates.all], dtype=bool)
        p_C = permutation_p_values(codes_RNC, failed_N, tasks, testable_C, criteria.permutations, seed + 1, known_C)
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
                    runs_passed=sum(run.selected for run in statistics),
                    coverage=_interval([run.coverage for run in statistics], cover_BC[:, column]),
                    delta=_interval([run.delta for run in statistics], delta_BC[:, column]),
                    p_value=float(p_C[column]),
                    agreement=krippendorff_alpha(codes_RNC[:, :, column]),
                    support=int((_majority_lacking(codes_RNC[:, :, column]) & failed_N).sum()),
                    selected=False,
                    reason="",
                )
            )
        reports.sort(key=lambda report: (-report.delta.mean, report.capability.name))
        failures = _lacking_failures(candidates, codes_RNC, failed_N, ids)
        reports = select(
            reports,
            failures,
            criteria,
            runs=len(runs),
            failed=int(failed_N.sum()),
            passed=int((~failed_N).sum()),
        )
    return AnalysisReport(
        capabilities=tuple(reports),
        rejected_runs={str(number): fault for number, fault in rejected.items()},
        left_out=candidates.left_out,
        passed=int((~failed_N).sum()),
        failed=int(failed_N.sum()),
        broken=len(trajectories) - len(graded),
    )


def _of_library(candidate: Candidate) -> bool:
    """True for a skill that was known before the data were seen; a model may call another one by the same name."""
    known = DETECTORS.get(candidate.name)
    return known is not None and known.description == candidate.description


def _run_statistics(
    run: int, codes_N: NDArray[np.int8], failed_N: NDArray[np.bool_], criteria: Criteria
) -> RunStatistics:
    def count(code: int, among: NDArray[np.bool_]) -> int:
        return int(((codes_N == code) & among).sum())

    seen = codes_N != UNSEEN
    lacking_failed, present_failed = count(LACKING, failed_N), count(PRESENT, failed_N)
    lacking_passed, present_passed = count(LACKING, ~failed_N), count(PRESENT, ~failed_N)
    failed = int((seen & failed_N).sum())
    coverage = share(lacking_failed, failed)
    rate_failed = share(lacking_failed, lacking_failed + present_failed)
    rate_passed = share(lacking_passed, lacking_passed + present_passed)
    delta = rate_failed - rate_passed
    return RunStatistics(
        run=run,
        lacking_failed=lacking_failed,
        present_failed=present_failed,
        lacking_passed=lacking_passed,
        present_passed=present_passed,
        failed=failed,
        passed=int((seen & ~failed_N).sum()),
        coverage=float(coverage),
        error_rate_failed=float(rate_failed),
        error_rate_passed=float(rate_passed),
        delta=float(delta),
        selected=coverage >= exact(criteria.min_coverage) and delta >= exact(criteria.min_delta),
    )


def _interval(points: Sequence[float], resampled_B: NDArray[np.float64]) -> Interval:
    """Mean over runs with the 95 % percentile interval over resampled tasks."""
    low, high = np.percentile(resampled_B, [2.5, 97.5])
    return Interval(mean=float(np.mean(points)) if points else 0.0, low=float(low), high=float(high))


def _majority_lacking(codes_RN: NDArray[np.int8]) -> NDArray[np.bool_]:
    """True where more than half of the runs that saw the trajectory call it LACKING."""
    lacking_N, seen_N = (codes_RN == LACKING).sum(axis=0), (codes_RN != UNSEEN).sum(axis=0)
    majority_N: NDArray[np.bool_] = 2 * lacking_N > seen_N
    return majority_N


def _lacking_failures(
    candidates: Candidates, codes_RNC: NDArray[np.int8], failed_N: NDArray[np.bool_], ids: Sequence[str]
) -> dict[str, frozenset[str]]:
    """By capability: the failed trajectories that a majority of runs calls LACKING."""
    found = {}
    for column, candidate in enumerate(candidates.all):
        lacking_N = _majority_lacking(codes_RNC[:, :, column]) & failed_N
        found[candidate.name] = frozenset(name for name, hit in zip(ids, lacking_N, strict=True) if hit)
    return found
