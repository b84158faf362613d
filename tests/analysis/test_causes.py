"""The choice among failed checks. Forty failed episodes and forty passed ones; which checks fail where is given."""

import numpy as np
import pytest
from made_episodes import made

from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.contract.capability import Candidates
from trace_jax.contract.trajectory import Check, Trajectory

FAILED = range(40)
Where = dict[str, object]


def discovered(failing: dict[str, object], only: dict[str, object] | None = None, last_word: bool = True) -> Candidates:
    """The candidates where each check fails in the episodes that ``failing`` names.

    A check is made in all episodes, or in those that ``only`` names. Episodes 0 to 39 fail, 40 to 79 pass.
    """
    episodes = []
    for number in range(80):
        checks = [
            Check(name=name, passed=number not in where)
            for name, where in failing.items()
            if number in (only or {}).get(name, range(80))
        ]
        said = ["Done."] if last_word or number not in FAILED[:10] else [("get_it", {}, {})]
        episodes.append(made("> Do it.", *said, number=number, reward=float(number not in FAILED), checks=checks))
    return RulesAnalyst().discover(episodes)


def names(found: Candidates) -> set[str]:
    return {candidate.name.removeprefix("meet_check_") for candidate in found.capabilities}


QUIET: dict[str, object] = {"tone.kind": (), "tone.short": (), "form.json": ()}  # checks that never fail
PARTS = {"book.free": range(15), "move.time": range(15, 30), "pay.total": range(30, 40)}


def test_narrow_checks_are_causes_and_what_sums_them_up_or_restates_the_reward_is_not() -> None:
    found = discovered(PARTS | {"all": FAILED, "state.right": range(30)} | QUIET)
    assert names(found) == {"book_free", "move_time", "pay_total"}
    assert "restates the reward" in found.left_out["all"]
    assert "sums up" in found.left_out["state_right"] and "book_free" in found.left_out["state_right"]


def test_a_single_check_that_is_the_reward_by_another_name_is_left_out() -> None:
    for name in ("state", "all", "ticket.answered"):
        found = discovered({name: FAILED})
        assert not names(found)
        (reason,) = found.left_out.values()
        assert "restates the reward" in reason


def test_one_cause_of_all_failures_is_taken_where_the_grader_checks_more() -> None:
    assert names(discovered({"book.confirmed": FAILED, "task.complete": FAILED} | QUIET)) == {"book_confirmed"}


def test_a_vague_check_is_no_candidate_alone() -> None:
    found = discovered({"database": range(25), "said": range(25, 40)}, {"said": range(25, 60)})
    assert names(found) == {"said"}
    assert "not what" in found.left_out["database"]


def test_checks_that_fail_in_passed_episodes_too_are_left_out() -> None:
    found = discovered({"style": range(20, 60), "book.free": range(20)} | QUIET)
    assert names(found) == {"book_free"} and "no part of the reward" in found.left_out["style"]


def test_of_checks_that_fail_together_the_specific_one_stands_for_all() -> None:
    found = discovered({"done": range(12), "book.free": range(12)} | QUIET)
    assert names(found) == {"book_free"} and found.left_out["done"] == "fails together with book_free"
    narrow = discovered({"b.wide": range(12), "a.needed": range(12)} | QUIET, {"b.wide": range(20)})
    assert names(narrow) == {"b_wide"}  # made in few episodes: it says more


def test_too_few_failures_are_counted() -> None:
    found = discovered({"book.free": range(4), "move.time": range(5, 40)} | QUIET)
    assert names(found) == {"move_time"} and found.left_out["book_free"] == "failed in 4 failed episodes; 5 are needed"


def test_what_fails_where_episodes_were_cut_off_is_a_symptom() -> None:
    found = discovered({"answered": FAILED[:10], "book.free": range(10, 40)} | QUIET, last_word=False)
    assert names(found) == {"book_free"} and "last word" in found.left_out["answered"]


def test_an_act_is_one_skill_in_all_kinds_of_request_and_a_field_is_not() -> None:
    acts = {"book.confirmed": range(13), "move.confirmed": range(13, 26), "pay.confirmed": range(26, 40)}
    assert names(discovered(acts | QUIET)) == {"meet_checks_of_confirmed"}
    fields = {name.replace("confirmed", "time"): where for name, where in acts.items()}
    assert names(discovered(fields | QUIET)) == {"book_time", "move_time", "pay_time"}


@pytest.mark.parametrize(("others", "quiet"), [(24, tuple(QUIET)), (8, ("tone.kind",))])
def test_a_check_that_fails_for_two_causes_is_divided(others: int, quiet: tuple[str, ...]) -> None:
    """Where the first slot was taken, or the letter was asked for, the same check fails.

    Where few ``others`` fail, the check is almost the reward: the lapse stands alone, and the letter is no candidate.
    """
    slots = [{"slot": f"S{n}"} for n in range(3)]
    rng = np.random.default_rng(0)
    episodes: list[Trajectory] = []
    for number in range(120):
        first, letter = number % 4 == 0, number % 4 == 1
        failed = bool((first or letter) and rng.random() < 0.8)
        taken = "S0" if first else "S2"
        choice = [("list_slots", {}, slots), ("reserve", {"slot": taken}, "ok")] if number % 2 == 0 else []
        request = "> Reserve one, and write a letter." if letter else "> Reserve one."
        checks = [Check(name="state", passed=not failed), *(Check(name=name, passed=True) for name in quiet)]
        episodes.append(made(request, *choice, "Done.", number=number, reward=float(not failed), checks=checks))
    for number in range(120, 120 + others):
        checks = [Check(name="tone.kind", passed=False), Check(name="state", passed=True)]
        episodes.append(made("> Sing.", "No.", number=number, reward=0.0, checks=checks))
    found = RulesAnalyst().discover(episodes)
    if len(quiet) == 1:
        assert "compare_options" in {candidate.name for candidate in found.capabilities}
        assert not any(candidate.name.endswith("meet_check_state") for candidate in found.capabilities)
        return
    assert {candidate.name for candidate in found.capabilities} >= {"compare_options__failing__meet_check_state"}
    assert any(
        candidate.name.startswith("asked_") and candidate.name.endswith("__failing__meet_check_state")
        for candidate in found.capabilities
    )
    assert all("Evidence: " in candidate.description for candidate in found.capabilities)


def test_nothing_is_proposed_without_failed_or_without_passed_episodes() -> None:
    for reward in (0.0, 1.0):
        episodes = [made("> Do it.", "Done.", number=n, reward=reward) for n in range(20)]
        assert not RulesAnalyst().discover(episodes).capabilities
