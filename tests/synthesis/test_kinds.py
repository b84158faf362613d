"""Claims: the kinds that exercise a capability are found by name or by evidence, and the routine ones by success."""

from collections.abc import Mapping
from random import Random

import pytest

from trace_jax.contract.trajectory import Check, Policy, Trajectory
from trace_jax.synthesis.kinds import Evidence, kinds_for, snake_case

KINDS = ("book", "first_free", "RefuseBoard", "count", "move")


class Asking:
    """A target of these kinds of requests."""

    name, results, request_kinds = "asking", {}, KINDS

    def tasks(self, split):
        return tuple(range(200))

    def environment(self, split):
        raise NotImplementedError

    def practice(self, seed, kinds=()):
        raise NotImplementedError


def episode(number: int, right: Mapping[str, bool], named: bool = True) -> Trajectory:
    """An episode that asked for the kinds in ``right``, and whether each was done right."""
    checks = [Check(name=f"{kind}.state" if named else "state", passed=passed) for kind, passed in right.items()]
    return Trajectory(
        id=f"e{number}", target="asking", task=str(number), split="train", seed=number, trial=0,
        policy=Policy(base="b"), messages=(), reward=float(all(right.values())), checks=tuple(checks),
        termination="done",
    )  # fmt: skip


def episodes(wrong: Mapping[str, float], named: bool = True) -> list[Trajectory]:
    """200 episodes of three kinds each, of which those in ``wrong`` fail with that probability."""
    rng = Random(7)
    return [
        episode(n, {kind: rng.random() >= wrong.get(kind, 0.02) for kind in rng.sample(KINDS, 3)}, named)
        for n in range(200)
    ]


def lacking(found: list[Trajectory], *kinds: str) -> frozenset[str]:
    """The episodes in which one of ``kinds`` failed."""
    failed = {f"{kind}.state" for kind in kinds}
    return frozenset(e.id for e in found if any(not check.passed and check.name in failed for check in e.checks))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("MoveEvent", "move_event"), ("move-event", "move_event"), ("Move it 2", "move_it_2"), ("HTTPGet", "httpget")],
)
def test_the_name_of_a_kind_as_that_of_a_capability(kind, name):
    assert snake_case(kind) == name


def test_a_capability_with_the_name_of_a_kind_is_that_kind_whatever_the_evidence():
    found = episodes({"count": 0.8})
    assert kinds_for("refuse_board", Asking(), Evidence(found, lacking(found, "count")))[0] == ("RefuseBoard",)
    assert kinds_for("refuse_board", Asking(), Evidence())[0] == ("RefuseBoard",)


@pytest.mark.parametrize("kinds", [("first_free",), ("RefuseBoard", "count")])
def test_kinds_are_told_by_the_failed_episodes_though_other_faults_occur_in_them_too(kinds):
    found = episodes({"first_free": 0.7, "RefuseBoard": 0.7, "count": 0.7})
    chosen, routine = kinds_for("some_detector", Asking(), Evidence(found, lacking(found, *kinds)))
    assert sorted(chosen) == sorted(kinds)
    assert routine == ("book", "move")


def test_what_fails_everywhere_tells_nothing():
    found = episodes({"count": 1.0})
    failed = [e.id for e in found if not e.passed]
    half = frozenset(failed[::2])
    chosen, _ = kinds_for(
        "polite_tone", Asking(), Evidence([e for e in found if "count.state" in {c.name for c in e.checks}], half)
    )
    assert "count" not in chosen
    assert kinds_for("polite_tone", Asking(), Evidence(found)) == ((), ())
    assert kinds_for("polite_tone", Asking(), Evidence()) == ((), ())


def test_broken_episodes_tell_nothing():
    found = episodes({"count": 0.8})
    broken = [e.replace(reward=None, error="gone", termination="error") for e in found]
    assert kinds_for("some_detector", Asking(), Evidence(broken, lacking(found, "count"))) == ((), ())


def test_without_such_checks_the_target_s_own_kinds_of_the_failed_tasks_tell():
    rng = Random(3)
    asked = {n: tuple(rng.sample(KINDS, 2)) for n in range(200)}
    found = [episode(n, {kind: kind != "count" for kind in kinds}, named=False) for n, kinds in asked.items()]

    class Target(Asking):
        def kinds(self, task):
            return asked[task]

    gone = frozenset(e.id for e in found if not e.passed)
    assert kinds_for("some_detector", Asking(), Evidence(found, gone)) == ((), ())
    chosen, routine = kinds_for("some_detector", Target(), Evidence(found, gone))
    assert chosen[0] == "count" and "count" not in routine


def test_without_a_routine_kind_all_others_are():
    found = episodes(dict.fromkeys(KINDS, 0.9))
    chosen, routine = kinds_for("count", Asking(), Evidence(found, frozenset()))
    assert chosen == ("count",) and routine == ("book", "first_free", "RefuseBoard", "move")
