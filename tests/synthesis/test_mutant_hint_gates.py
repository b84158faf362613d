"""Claims of two gates: each thing that a goal mutant, or a hint, may not do is refused by itself, with its seed."""

import pytest

from benchmarks.planted_designs.library import Fines
from trace_jax.environments.protocol import Outcome
from trace_jax.synthesis.hint_gates import hint
from trace_jax.synthesis.mutant_gates import NO_MUTANT, goal_mutants
from trace_jax.synthesis.probes import play, solve

SEEDS = range(3)


def solved(make):
    return {seed: play(make(), seed, solve) for seed in SEEDS}


class Elsewhere(Fines):
    """The mutant is another episode altogether."""

    def mutant(self, task):
        return super().reset(int(task) + 100)


class Bribed(Fines):
    """Everything is paid, and there is no other goal."""

    def mutant(self, task):
        return None

    def grade(self):
        return Outcome(1.0)


class Steadfast(Fines):
    """The old goal is still paid, beside the new one."""

    old = None

    def mutant(self, task):
        self.reset(task)
        self.old = self.scenario.expected
        return super().mutant(task)

    def grade(self):
        return Outcome(1.0) if self.world == self.old else super().grade()


class Hopeless(Fines):
    """No solution of the changed goal is paid."""

    mutated = False

    def mutant(self, task):
        self.mutated = True
        return super().mutant(task)

    def grade(self):
        return Outcome(0.5) if self.mutated else super().grade()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Elsewhere, "with another goal on the same state the episode begins in another state"),
        (Steadfast, "with another goal on the same state the old solution still earns 1: list_books"),
        (Hopeless, "with another goal on the same state the new solution earns 0.5, not 1"),
        (Bribed, "the solution of another seed is sent: of 1, and it earns 1"),
    ],
)
def test_a_mutant_is_refused_for_each_thing_by_itself(make, words):
    found = goal_mutants(make, solved(make))
    assert not found.passed and found.detail.startswith(f"seed 0: {words}"), found.detail


def test_where_no_seed_has_a_mutant_the_gate_says_so():
    class Single(Fines):
        def mutant(self, task):
            return None

    found = goal_mutants(Single, solved(Single))
    assert found.passed and found.detail.startswith(NO_MUTANT)


def hinting(text):
    class Hinted(Fines):
        def hint(self):
            return text(self.scenario.expected.payments[0].amount) if callable(text) else text

    return Hinted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  \n", "seed 0: the hint is empty (and 2 more)"),
        (None, "seed 0: hint() returned None, no text"),
        (lambda amount: f"Pay {amount}.", "seed 0: the hint names '"),
    ],
)
def test_a_hint_is_refused_for_each_thing_by_itself(text, words):
    make = hinting(text)
    found = hint(make, solved(make))
    assert not found.passed and found.detail.startswith(words), found.detail


def test_a_number_that_stands_in_every_hint_is_no_answer():
    amounts = {episode.deciding[0].call.arguments["amount"] for episode in solved(Fines).values()}
    make = hinting(f"The fines are {', '.join(map(str, amounts))}, or others.")
    assert hint(make, solved(make)).passed
