"""Claims: every generator passes every gate at every difficulty, and each planted fault fails the gate made for it."""

import itertools
import json

import pytest

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Tool
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.practice.compute_over_values import ComputeOverValues
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.registry import environment_factory
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.gates import run_gates

BRIEF = make_brief(
    Candidate(name="compute_over_values", description=""), Design(entry_point="helpdesk", parameters={}), Helpdesk()
)
SEEDS = range(500, 512)


def failed(make, seeds=SEEDS):
    return {
        check.name: check.detail for check in run_gates(make, BRIEF.tools, BRIEF.results, seeds) if not check.passed
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_every_generator_passes_at_every_difficulty(name):
    for rung, design in enumerate(FamilyPractice(FAMILIES[name]).designs):
        assert failed(environment_factory(design), range(100 * rung, 100 * rung + 16)) == {}, design


def rewrite(observation, change):
    """Tool results with ``change`` applied to their parsed content."""
    messages = tuple(
        m.model_copy(update={"content": json.dumps(change(json.loads(m.content)))}) if m.role == "tool" else m
        for m in observation.messages
    )
    return Observation(messages, observation.done)


class Counting(ComputeOverValues):
    count = itertools.count()

    def reset(self, seed):
        return super().reset(next(self.count))


class Remembering(ComputeOverValues):
    episodes = 0

    def reset(self, seed):
        self.episodes += 1
        return super().reset(seed + 100 * self.episodes)


class Constant(ComputeOverValues):
    def reset(self, seed):
        return super().reset(3)


class Generous(ComputeOverValues):
    def grade(self):
        return Outcome(1.0)


class Stingy(ComputeOverValues):
    def grade(self):
        return Outcome(0.9 * super().grade().reward)


class HalfHearted(ComputeOverValues):
    def solution(self):
        return super().solution()[:-1]


class Forgiving(ComputeOverValues):
    """Looks only at what was asked for."""

    def _right(self, request, turn):
        return set(map(str, request.right.calls)) <= set(map(str, turn.calls)) and turn.reply is not None


class OtherTool(ComputeOverValues):
    def __init__(self):
        super().__init__()
        self.tools += (Tool(name="solve", description="", parameters={"type": "object"}),)


class OtherSchema(ComputeOverValues):
    def __init__(self):
        super().__init__()
        self.tools = (self.tools[0].model_copy(update={"description": "Look it up."}), *self.tools[1:])


class OtherShape(ComputeOverValues):
    def step(self, message):
        return rewrite(super().step(message), lambda value: {**value, "total": "9"})


class Leaky(ComputeOverValues):
    """Tells the sum with the order it belongs to."""

    def step(self, message):
        def tell(value):
            order = message.tool_calls[0].arguments and message.tool_calls[0].arguments.get("order_id")
            return {**value, "due": {order: sum(value["items"].values())}} if "items" in value else value

        return rewrite(super().step(message), tell)


class Instructing(ComputeOverValues):
    def step(self, message):
        return rewrite(super().step(message), lambda value: {**value, "next": "now call refund"})


class Silent(ComputeOverValues):
    """Takes unknown tools for fine."""

    def step(self, message):
        return rewrite(super().step(message), lambda value: {"ok": True} if "error" in value else value)


@pytest.mark.parametrize(
    ("make", "gate", "words"),
    [
        (Counting, "deterministic", "gave another episode"),
        (Remembering, "deterministic", "gave another episode"),
        (Constant, "seeds_differ", "1 different episodes from 12 seeds"),
        (Generous, "do_nothing", "mean reward 1.000"),
        (Generous, "always_refuse", "mean reward 1.000"),
        (Generous, "random", "mean reward 1.000"),
        (Generous, "wrong_change_costs", "costs nothing"),
        (Stingy, "solution_earns_1", "the solution earns 0.9"),
        (HalfHearted, "solution_earns_1", "does not end the episode"),
        (Forgiving, "wrong_change_costs", "costs nothing"),
        (OtherTool, "tools_of_target", "solve is no tool of the target"),
        (OtherSchema, "tools_of_target", "get_order differs from the target's"),
        (OtherShape, "results_of_target", "which the target's does not"),
        (Leaky, "no_leak", "returns all of refund"),
        (Instructing, "no_leak", "names the tool refund"),
        (Silent, "bad_calls_answered", "of calls a, b, c only []"),
    ],
)
def test_a_planted_fault_fails_its_gate(make, gate, words):
    found = failed(make)
    assert words in found.get(gate, ""), found


def test_what_an_environment_raises_is_not_swallowed():
    class Raising(ComputeOverValues):
        def step(self, message):
            raise ZeroDivisionError("in step")

    with pytest.raises(ZeroDivisionError, match="in step"):
        run_gates(Raising, BRIEF.tools, BRIEF.results, SEEDS)
