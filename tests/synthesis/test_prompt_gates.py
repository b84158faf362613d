"""Claims: practice that repeats a task is found out, and so are prompts that a router could not learn from."""

from dataclasses import replace

import pytest
from bank_desk import KINDS, BankDesk

from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Message
from trace_jax.environments import kit
from trace_jax.environments.practice import PracticeEnvironment, RequestPractice
from trace_jax.environments.protocol import Prompts
from trace_jax.environments.registry import environment_factory, load_target
from trace_jax.synthesis.disjoint import NO_TASKS, conversations
from trace_jax.synthesis.gates import run_gates
from trace_jax.synthesis.probes import play, solve
from trace_jax.synthesis.prompt_gates import NO_PROMPTS, prompt_gates

SEEDS = range(16)
BANK = Design(entry_point="bank_desk:bank", parameters={})
CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={"train": 20, "held_out": 20})


PRACTICE = [
    (BANK, RequestPractice(BANK, ("pay_frozen",), ("balance", "pay", "close_card")), 2),
    (BANK, RequestPractice(BANK, ("balance",)), 0),
    (CALENDAR, RequestPractice(CALENDAR, ("first_free",), ("book", "move", "cancel", "invite")), 0),
    (CALENDAR, RequestPractice(CALENDAR, ("refuse_board", "count"), ("book", "move", "cancel")), 5),
]


def passes_every_gate(own, practice, rung):
    target = load_target(own.entry_point, own.parameters)
    tools, tasks = target.environment("train").tools, conversations(target)
    make = environment_factory(practice.designs[rung], own)
    checks = run_gates(make, tools, target.results, range(500, 506), tasks)
    assert [check for check in checks if not check.passed] == []
    details = {check.name: check.detail for check in checks}
    assert details["disjoint"] == f"no conversation is one of {tasks.tasks} tasks of the target" and tasks.tasks >= 40
    assert details["goal_mutants"].startswith(("5 of 6", "6 of 6"))


@pytest.mark.parametrize(("own", "practice", "rung"), PRACTICE)
def test_practice_of_any_target_passes_every_gate(own, practice, rung, short_search):
    passes_every_gate(own, practice, rung)


@pytest.mark.slow
@pytest.mark.parametrize(("own", "practice", "rung"), PRACTICE)
def test_practice_of_any_target_passes_every_gate_after_a_whole_search(own, practice, rung):
    passes_every_gate(own, practice, rung)


class Overlapping(kit.PracticeTarget):
    """Its practice is drawn from the training split."""

    def practice(self, seed, kinds=()):
        task = super().practice(seed, kinds)

        def environment():
            made = self.environment("train")
            made.kinds = tuple(kinds)
            return made

        drawn = environment()
        drawn.reset(seed)
        requests = tuple(
            type(task.requests[0])(request.kind, request.text, request.solution, request.must_say)
            for request in drawn.scenario.requests
        )
        return type(task)(requests, environment)


class OneRequest(BankDesk):
    """Tasks of one request each, and of one kind."""

    def draw(self, rng):
        self.kinds = self.kinds or ("pay",)
        return super().draw(rng)


def overlapping() -> Overlapping:
    return Overlapping(OneRequest, train=20, held_out=20, kinds=KINDS)


def test_a_source_that_overlaps_with_a_split_is_found_out():
    def disjoint(make):
        own = Design(entry_point=f"{__name__}:{make}", parameters={})
        target = load_target(own.entry_point)
        environment = environment_factory(RequestPractice(own, ("pay",)).first, own)
        heard = {seed: play(environment(), seed, solve).heard for seed in range(6)}
        return prompt_gates(environment, heard, conversations(target))[0]

    found = disjoint("overlapping")
    assert not found.passed
    assert found.detail.startswith("seed 0: the user says the same as in a task of the target")
    assert found.detail.endswith("(and 5 more)")
    assert disjoint("apart").passed


def apart() -> kit.PracticeTarget:
    return kit.PracticeTarget(OneRequest, train=20, held_out=20, kinds=KINDS)


def test_tasks_that_break_are_counted_and_targets_without_practice_are_left_alone(monkeypatch):
    target = load_target("bank_desk:bank")
    whole = conversations(target)
    reset = BankDesk.reset
    monkeypatch.setattr(BankDesk, "reset", lambda self, task: reset(self, task) if task % 3 else 1 / 0)
    some = conversations(target)
    assert (whole.tasks, whole.broken, some.tasks, some.broken) == (60, 0, 40, 20)
    check, _ = prompt_gates(lambda: None, {}, some)
    assert check.passed and check.detail.endswith("40 tasks of the target; 20 could not be played")

    class Plain:
        name, results = "plain", {}

        def tasks(self, split):
            raise AssertionError("its user may be a language model")

        environment = tasks

    assert conversations(Plain()) == NO_TASKS


def prompts_gate(make):
    return prompt_gates(make, dict.fromkeys(SEEDS, ()), NO_TASKS)[1]


def environment():
    return PracticeEnvironment("bank_desk:bank", ["pay"], ["balance"])


def test_an_environment_without_prompts_is_told_before_anything_is_trained():
    assert prompts_gate(environment).detail.startswith("14 different of 16, ")
    found = prompts_gate(object)
    assert found.passed and found.detail == NO_PROMPTS


class Silent(PracticeEnvironment):
    def prompts(self, seed, combined_with=None):
        return Prompts((Message(role="system", content="Hello."),))


class Empty(PracticeEnvironment):
    def prompts(self, seed, combined_with=None):
        return Prompts(())


class Answered(PracticeEnvironment):
    def prompts(self, seed, combined_with=None):
        found = super().prompts(seed)
        answered = Message(role="assistant", content="Done.")
        return found if combined_with is None else replace(found, combined=(*found.exercised, answered))


class Wavering(PracticeEnvironment):
    drawn = 0

    def prompts(self, seed, combined_with=None):
        type(self).drawn += 1
        return super().prompts(seed + self.drawn)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Silent, "seed 0: the prompt that needs the capability does not end with the user"),
        (Empty, "seed 0: the prompt that needs the capability does not end with the user"),
        (Answered, "seed 0: the prompt that is combined with another does not end with the user"),
        (Wavering, "seed 0: other prompts the second time"),
    ],
)
def test_prompts_from_which_nothing_can_be_learnt_fail(make, words):
    found = prompts_gate(lambda: make("bank_desk:bank", ["pay"], ["balance"]))
    assert not found.passed and found.detail.startswith(words)
