"""Scores one analysis against the truth."""

from collections.abc import Mapping

from evaluation.judging.agreement import agreement_with_truth, blamed, named_agreement
from evaluation.judging.match import Match, best_by_capability, best_by_fault, marked_episodes
from evaluation.judging.report import Cost, FaultScore, SelectedScore, SourceScore
from evaluation.judging.truth import Truth
from trace_jax.analysis import Analysis


def score(found: Analysis, truth: Truth, episodes: str, cost: Cost) -> SourceScore:
    """What the analyst has selected of ``truth``. ``episodes`` is the content of what it read."""
    marked = marked_episodes(found)
    chosen = {each.capability.name: marked[each.capability.name] for each in found.selected}
    selected, proposed = best_by_fault(chosen, truth), best_by_fault(marked, truth)
    stands = {fault: chosen[best.capability] & truth.judged for fault, best in selected.items() if best and best.right}
    reports = found.report.capabilities
    alphas = [each.agreement for each in reports if not each.distractor and each.agreement is not None]
    return SourceScore(
        source=truth.name,
        seed=truth.seed,
        episodes=episodes,
        passed=found.report.passed,
        failed=found.report.failed,
        judged=len(truth.judged),
        faults=tuple(_fault(fault, truth, selected[fault], proposed[fault]) for fault in truth.faults),
        selected=_selected(best_by_capability(chosen, truth), truth),
        distractors=tuple(each.capability.name for each in reports if each.distractor and each.selected),
        rejected_runs=len(found.report.rejected_runs),
        agreement_of_runs=sum(alphas) / len(alphas) if alphas else None,
        agreement_with_truth=agreement_with_truth(stands, truth, truth.seed),
        named=named_agreement(marked, truth),
        blamed=blamed(marked, truth),
        cost=cost,
    )


def _fault(fault: str, truth: Truth, selected: Match | None, proposed: Match | None) -> FaultScore:
    return FaultScore(
        fault=fault,
        episodes=len(truth.faults[fault]),
        found=selected is not None and selected.found,
        capability=selected.capability if selected else None,
        precision=selected.precision if selected else 0.0,
        coverage=selected.coverage if selected else 0.0,
        proposed=proposed.capability if proposed else None,
        proposed_precision=proposed.precision if proposed else 0.0,
        proposed_coverage=proposed.coverage if proposed else 0.0,
    )


def _selected(stands: Mapping[str, Match | None], truth: Truth) -> tuple[SelectedScore, ...]:
    """Selected capabilities. One is right if nearly all judged failures that it marks have one and the same fault."""
    return tuple(
        SelectedScore(
            capability=name,
            stands_for=found.fault if found else None,
            right=found is not None and found.right and found.fault in truth.faults,
            precision=found.precision if found else 0.0,
            coverage=found.coverage if found else 0.0,
        )
        for name, found in stands.items()
    )
