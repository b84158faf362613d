"""Claims: a mutant keeps the state and changes the goal; unchanged, its random numbers are those of Random."""

from dataclasses import dataclass
from random import Random

import pytest
from bank_desk import BankDesk, bank

from examples.calendar import Calendar, calendar
from trace_jax.environments import kit
from trace_jax.environments.kit.mutants import _Traced, mutant_of
from trace_jax.environments.practice import PracticeEnvironment


def everything(rng):
    items = list(range(9))
    rng.shuffle(items)
    return [
        items, rng.random(), rng.randrange(7), rng.choice("abc"), rng.sample(range(40), 5), rng.gauss(),
        rng.randbytes(2), rng.choices("xyz", k=4), rng.uniform(1, 2), rng.getrandbits(70),
    ]  # fmt: skip


def test_the_traced_numbers_are_those_of_random():
    assert everything(_Traced("key")) == everything(Random("key"))


def test_only_the_numbers_from_the_changed_one_on_may_differ():
    def changed(number):
        traced = _Traced("key")
        traced.changed, traced.other = number, Random("other")
        return [traced.random() for _ in range(5)]

    rng = Random("key")
    usual = [rng.random() for _ in range(5)]
    for number in range(5):
        found = changed(number)
        assert [a == b for a, b in zip(found, usual, strict=True)] == [each != number for each in range(5)]


@pytest.mark.parametrize("make", [Calendar, BankDesk])
def test_a_mutant_begins_in_the_same_state_and_has_another_solution(make):
    found = 0
    for seed in range(20):
        environment, mutated = make(), make()
        environment.reset(seed)
        opening = mutated.mutant(seed)
        if opening is None:
            continue
        found += 1
        assert mutated.state() == environment.state()
        assert mutated.solution() != environment.solution()
        assert opening.messages[0] == environment.reset(seed).messages[0]
        for message in mutated.solution():
            done = mutated.step(message).done
        assert done and mutated.grade().reward == 1.0
        again = make()
        assert again.mutant(seed) == opening and again.solution() == mutated.solution()
        assert mutated.reset(seed) == environment.reset(seed), "the mutant is gone"
    assert found >= 15


@dataclass
class Lamp:
    on: bool = False

    @kit.tool
    def switch(self, on: bool) -> None:
        """Switch it."""
        self.on = on


class OneGoal(kit.Environment[Lamp]):
    """The state is drawn from the goal: no other goal fits it."""

    name, state_type, policy = "lamp", Lamp, "You switch a lamp."

    def draw(self, rng):
        wanted = rng.random() < 0.5
        scenario = kit.Scenario(Lamp(not wanted))
        scenario.add(kit.Request("Switch it.", (kit.call("switch", on=wanted),)))
        return scenario


def test_where_the_state_depends_on_the_goal_there_is_no_mutant():
    environment = OneGoal()
    assert all(environment.mutant(seed) is None for seed in range(8))
    scenario = environment.draw(Random("k"))
    assert mutant_of(environment.draw, "k", scenario) is None


@pytest.mark.parametrize(("make", "kinds"), [(bank, ("pay", "balance")), (calendar, ("first_free", "cancel"))])
def test_practice_has_the_mutants_of_its_target(make, kinds):
    target = make()
    task, other = target.practice(3, kinds), target.other_goal(3, kinds)
    assert [request.kind for request in other.requests] == list(kinds)
    assert [request.right for request in other.requests] != [request.right for request in task.requests]
    states = []
    for each in (task, other):
        environment = each.environment()
        environment.reset(3)
        states.append(environment.state())
    assert states[0] == states[1]


def test_practice_of_a_target_without_other_goals_has_no_mutants():
    environment = PracticeEnvironment("helpdesk", ["refund_two"], exercised=1, routine=0, contrast_every=0)
    assert environment.mutant(3) is None
