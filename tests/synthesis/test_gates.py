"""Claims: the shipped generators pass every gate, and what an environment raises names the seed.

Which gate refuses which fault: test_gate_matrix.py.
"""

import pytest

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.practice.compute_over_values import ComputeOverValues
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.registry import environment_factory
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.gates import run_gates

BRIEF = make_brief(
    Candidate(name="compute_over_values", description=""), Design(entry_point="helpdesk", parameters={}), Helpdesk()
)


@pytest.fixture(scope="module")
def tasks():
    return conversations(Helpdesk())


def failed(design, seeds, tasks):
    checks = run_gates(environment_factory(design), BRIEF.tools, BRIEF.results, seeds, tasks)
    return {check.name: check.detail for check in checks if not check.passed}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_generator_passes_where_it_begins_and_where_it_is_hardest(name, tasks, short_search):
    ladder = FamilyPractice(FAMILIES[name])
    for design in (ladder.first, ladder.designs[-1]):
        assert failed(design, range(100, 108), tasks) == {}, design


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_generator_passes_at_every_difficulty(name, tasks):
    for rung, design in enumerate(FamilyPractice(FAMILIES[name]).designs):
        assert failed(design, range(100 * rung, 100 * rung + 16), tasks) == {}, design


def test_what_an_environment_raises_is_not_swallowed():
    class Raising(ComputeOverValues):
        def step(self, message):
            raise ZeroDivisionError("in step")

    with pytest.raises(ZeroDivisionError, match="in step") as raised:
        run_gates(Raising, BRIEF.tools, BRIEF.results, range(500, 512))
    assert raised.value.__notes__ == ["in the episode of seed 500"]
