"""The rules analyst on targets that nobody prepared for it: planted faults are found, habits are not."""

from functools import cache

import pytest
from desk_rollouts import shuffled

from benchmarks.planted.score import judge
from evaluation.planted.bank import BANK
from evaluation.planted.calendar import CALENDAR
from evaluation.planted.grading import with_checks
from evaluation.planted.hotel import HOTEL
from evaluation.planted.planner import PLANNER
from evaluation.planted.play import DISTRACTORS, Planted, Played, play
from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import analyse

TARGETS = (BANK, CALENDAR, HOTEL, PLANNER)


@cache
def episodes_of(name: str) -> tuple[Played, ...]:
    """Enough for a habit's rate of failures; the first of them are those of a smaller sample too."""
    return play(next(target for target in TARGETS if target.name == name), 0, 400)


@pytest.mark.parametrize(
    ("target", "least"), [(BANK, 4), (HOTEL, 4), (PLANNER, 4), (CALENDAR, 3)], ids=lambda v: getattr(v, "name", v)
)
def test_planted_faults_are_found_with_checks(target: Planted, least: int) -> None:
    verdict = judge(target, 0, 120, "aspects")
    assert sum(match is not None and match.found for match in verdict.faults.values()) >= least
    assert not verdict.distractors


def test_planted_faults_are_found_by_behaviour_alone() -> None:
    verdict = judge(BANK, 0, 120, "none")
    assert sum(match is not None and match.found for match in verdict.faults.values()) >= 3
    assert not verdict.distractors and not verdict.others


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_habits_of_the_test_bed_cost_nothing(target: Planted) -> None:
    played = episodes_of(target.name)
    for habit in DISTRACTORS:
        rates = [
            sum(not p.trajectory.passed for p in played if (habit in p.habits) is has)
            / sum((habit in p.habits) is has for p in played)
            for has in (True, False)
        ]
        assert abs(rates[0] - rates[1]) < 0.12, habit


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_shuffled_outcomes_select_nothing(target: Planted, seed: int, tmp_path) -> None:
    episodes = [with_checks(played.trajectory, "none") for played in episodes_of(target.name)[:120]]
    found = analyse(shuffled(episodes, seed), RulesAnalyst(), tmp_path, seed=seed, criteria=Criteria(resamples=50))
    assert not found.selected
