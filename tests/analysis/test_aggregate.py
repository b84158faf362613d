import numpy as np
import pytest

from trace_jax.analysis.aggregate import aggregate
from trace_jax.analysis.residual import newly_covered
from trace_jax.analysis.select import Criteria, selected_capabilities
from trace_jax.analysis.thresholds import needed
from trace_jax.contract.capability import (
    AnalysisReport,
    Candidate,
    Candidates,
    CapabilityReport,
    Label,
    LabelRun,
    PairLabel,
)
from trace_jax.contract.trajectory import Message, Policy, Trajectory

NAMES = ("first", "second", "third", "polite")
CANDIDATES = Candidates(
    analyst="hand",
    capabilities=tuple(Candidate(name=name, description=name) for name in NAMES[:3]),
    distractors=(Candidate(name="polite", description="polite"),),
)
FAST = Criteria(resamples=200, permutations=2000)


def episode(number: int, reward: float | None) -> Trajectory:
    return Trajectory(
        id=f"t{number}",
        target="hand",
        task=str(number),
        split="train",
        seed=number,
        trial=0,
        policy=Policy(base="b"),
        messages=(Message(role="user", content="hello"),),
        reward=reward,
        termination="done" if reward is not None else "error",
        error=None if reward is not None else "the server fell over",
    )


EPISODES = tuple(episode(i, 0.0 if i < 40 else 1.0) for i in range(80))


def run(number: int, lacking: dict[str, set[int]], needed: set[int] | None = None) -> LabelRun:
    """``lacking[name]`` are the trajectories that lack it; the others show it where ``needed``."""
    labels = [
        PairLabel(
            trajectory=f"t{i}",
            capability=name,
            label=Label.LACKING
            if i in lacking.get(name, set())
            else Label.PRESENT
            if needed is None or i in needed
            else Label.NA,
        )
        for i in range(80)
        for name in NAMES
    ]
    return LabelRun(
        run=number, seed=0, analyst="hand", trajectories=tuple(f"t{i}" for i in range(80)), labels=tuple(labels)
    )


def report_of(report: AnalysisReport, name: str) -> CapabilityReport:
    return next(found for found in report.capabilities if found.capability.name == name)


def test_counts_rates_and_rank_by_hand() -> None:
    lacking = {"first": set(range(10)) | {40}, "second": set(range(20, 36)) | {50, 51}}
    report = aggregate(CANDIDATES, [run(n, lacking) for n in range(10)], EPISODES, FAST, 0)
    first = report_of(report, "first").runs[3]
    assert (first.lacking_failed, first.present_failed, first.lacking_passed, first.present_passed) == (10, 30, 1, 39)
    assert (first.failed, first.passed, first.coverage) == (40, 40, 0.25)
    assert first.error_rate_failed == 0.25 and first.error_rate_passed == 1 / 40
    assert first.delta == pytest.approx(0.225) and first.selected
    assert [found.capability.name for found in report.capabilities][:2] == ["second", "first"]
    assert [found.selected for found in report.capabilities] == [True, True, False, False]
    assert report_of(report, "second").coverage.mean == pytest.approx(0.4)
    assert report_of(report, "second").coverage.low < 0.4 < report_of(report, "second").coverage.high
    chosen = selected_capabilities(report, [run(0, lacking)], EPISODES)
    assert [(found.rank, found.capability.name) for found in chosen] == [(1, "second"), (2, "first")]
    assert set(chosen[1].failed_examples) == {f"t{i}" for i in range(10)}


def test_eight_of_ten_runs_must_pass() -> None:
    strong, weak = {"first": set(range(12))}, {"first": set(range(3))}
    for good, expected in ((8, True), (7, False)):
        runs = [run(n, strong if n < good else weak) for n in range(10)]
        found = report_of(aggregate(CANDIDATES, runs, EPISODES, FAST, 0), "first")
        assert (found.runs_passed, found.selected) == (good, expected)
    assert "7/10 runs pass" in found.reason and "8 needed" in found.reason


def small(failed: tuple[int, int], passed: tuple[int, int], unneeded: int = 0) -> CapabilityReport:
    """The report on "first" where ``(lacking, present)`` of the failed and of the passed needed it.

    ``unneeded`` more failed ones did not.
    """
    labels = [Label.LACKING] * failed[0] + [Label.PRESENT] * failed[1] + [Label.NA] * unneeded
    count = len(labels)
    labels += [Label.LACKING] * passed[0] + [Label.PRESENT] * passed[1]
    episodes = [episode(i, 0.0 if i < count else 1.0) for i in range(len(labels))]
    only = Candidates(analyst="hand", capabilities=CANDIDATES.capabilities[:1])
    given = LabelRun(
        run=0,
        seed=0,
        analyst="hand",
        trajectories=tuple(found.id for found in episodes),
        labels=tuple(
            PairLabel(trajectory=found.id, capability="first", label=label)
            for found, label in zip(episodes, labels, strict=True)
        ),
    )
    criteria = Criteria(resamples=2, permutations=2)
    return aggregate(only, [given], episodes, criteria, 0).capabilities[0]


def test_a_difference_of_exactly_a_fifth_passes_and_a_hair_less_does_not() -> None:
    assert 0.3 - 0.1 < 0.2  # what floating point makes of it
    exact = [
        ((lacking, total - lacking), (below, others - below))
        for total in range(1, 16)
        for others in range(1, 16)
        for lacking in range(total + 1)
        for below in range(others + 1)
        if 5 * (lacking * others - below * total) == total * others
    ]
    assert ((3, 7), (1, 9)) in exact and len(exact) > 100
    for failed, passed in exact[:: max(len(exact) // 25, 1)] + [((3, 7), (1, 9))]:
        (statistics,) = small(failed, passed).runs
        assert statistics.selected and statistics.delta == 0.2, (failed, passed)
    (statistics,) = small((29, 71), (1, 9)).runs
    assert not statistics.selected and statistics.delta == 0.19


def test_coverage_of_exactly_a_tenth_passes() -> None:
    for tenth in (1, 3, 7, 11):
        (statistics,) = small((tenth, 0), (0, 5), unneeded=9 * tenth).runs
        assert statistics.coverage == 0.1 and statistics.selected
        (statistics,) = small((tenth, 0), (0, 5), unneeded=9 * tenth + 1).runs
        assert not statistics.selected


@pytest.mark.parametrize(
    ("threshold", "whole", "count"),
    [
        (0.8, 10, 8),
        (0.8, 11, 9),
        (0.07, 100, 7),
        (0.55, 100, 55),
        (0.05, 40, 2),
        (0.05, 41, 3),
        (1.0, 3, 3),
        (0.0, 9, 0),
    ],
)
def test_thresholds_mean_the_decimal_that_is_written(threshold: float, whole: int, count: int) -> None:
    assert needed(threshold, whole) == count
    covered = [frozenset(map(str, range(count))), frozenset(map(str, range(count - 1)))]
    assert newly_covered(covered[:1], threshold, whole) == [(count, True)]
    if count:
        assert newly_covered(covered[1:], threshold, whole) == [(count - 1, False)]


def test_a_run_without_a_clean_partition_is_refused_and_the_pairs_are_named() -> None:
    whole = run(0, {"first": set(range(12))})
    missing = whole.replace(run=1, labels=whole.labels[1:])
    twice = whole.replace(run=2, labels=(*whole.labels, whole.labels[7]))
    stranger = whole.replace(run=3, trajectories=("t99", *whole.trajectories[1:]))
    report = aggregate(CANDIDATES, [whole, missing, twice, stranger], EPISODES, FAST, 0)
    assert set(report.rejected_runs) == {"1", "2", "3"}
    assert "missing: (t0, first)" in report.rejected_runs["1"]
    assert "more than once: (t1, polite)" in report.rejected_runs["2"]
    assert "t99" in report.rejected_runs["3"]
    # A rejected run still counts among the runs that were made: 1 of 4 is not 80 %.
    found = report_of(report, "first")
    assert len(found.runs) == 1 and found.runs_passed == 1 and not found.selected and "4 needed" in found.reason


def test_a_capability_whose_failures_are_covered_is_dropped_with_the_reason() -> None:
    lacking = {"first": set(range(20)), "second": set(range(2, 18)) | {39}, "third": set(range(20, 36))}
    found = aggregate(CANDIDATES, [run(n, lacking) for n in range(10)], EPISODES, FAST, 0)
    assert {each.capability.name for each in found.capabilities if each.selected} == {"first", "third"}
    assert "residual coverage 1/40" in report_of(found, "second").reason
    assert newly_covered([frozenset("abc"), frozenset("bcd"), frozenset("cd")], 0.2, 5) == [
        (3, True),
        (1, True),
        (0, False),
    ]


def test_a_distractor_that_passes_covers_no_capability_away() -> None:
    lacking = {"polite": set(range(20)), "first": set(range(18))}
    found = aggregate(CANDIDATES, [run(n, lacking) for n in range(10)], EPISODES, FAST, 0)
    assert found.capabilities[0].capability.name == "polite"  # the better rank, and every failure of the other one
    assert {each.capability.name for each in found.capabilities if each.selected} == {"polite", "first"}
    chosen = selected_capabilities(found, [run(0, lacking)], EPISODES)
    assert [each.capability.name for each in chosen] == ["first"]


def test_too_little_support_is_not_selected_and_says_so() -> None:
    criteria = Criteria(min_coverage=0.05, resamples=200, permutations=2000)
    found = report_of(
        aggregate(
            CANDIDATES, [run(n, {"first": {0, 1, 2, 3}}, {0, 1, 2, 3}) for n in range(10)], EPISODES, criteria, 0
        ),
        "first",
    )
    assert found.runs_passed == 10 and not found.selected and "support 4 < 5" in found.reason


def test_an_association_that_chance_would_give_is_not_selected() -> None:
    """Delta is 0.25 in every run, but rests on twelve tasks: other tasks' outcomes would do as well."""
    lacking, needed = {"first": {*range(5), *range(40, 42)}}, {*range(8), *range(40, 46)}
    found = report_of(aggregate(CANDIDATES, [run(n, lacking, needed) for n in range(10)], EPISODES, FAST, 0), "first")
    assert found.runs_passed == 10 and found.support == 5
    assert found.p_value > 0.05 and not found.selected and "p = " in found.reason


def test_broken_episodes_count_neither_as_failed_nor_as_passed() -> None:
    broken = tuple(episode(100 + i, None) for i in range(9))
    report = aggregate(CANDIDATES, [run(n, {"first": set(range(12))}) for n in range(10)], EPISODES + broken, FAST, 0)
    assert (report.failed, report.passed, report.broken) == (40, 40, 9)


def test_agreement_falls_with_the_noise_of_the_runs() -> None:
    rng = np.random.default_rng(0)
    alphas = []
    for noise in (0.0, 0.2, 0.5):
        runs = [run(n, {"first": {i for i in range(80) if (i < 30) != (rng.random() < noise)}}) for n in range(6)]
        alphas.append(report_of(aggregate(CANDIDATES, runs, EPISODES, FAST, 0), "first").agreement)
    assert alphas[0] == 1.0 and alphas[0] > alphas[1] > alphas[2]
