"""Claims: the rules designer starts in the middle, turns the difficulty as told, and gives up with a reason."""

import pytest

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Attempt
from trace_jax.environments.helpdesk.practice import FAMILIES
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.synthesis.designer import DesignError, make_brief
from trace_jax.synthesis.rules import RulesDesigner, first_design, ladder


def brief(name):
    return make_brief(Candidate(name=name, description="d"), "helpdesk", Helpdesk())


def after(name, *feedbacks):
    """The designs in reply to that feedback, one after the other."""
    attempts = ()
    designs = [RulesDesigner().design(brief(name), ())]
    for number, feedback in enumerate(feedbacks):
        attempts += (Attempt(round=number, design=designs[-1], gates=(), calibration=None, feedback=feedback),)
        designs.append(RulesDesigner().design(brief(name), attempts))
    return designs


@pytest.mark.parametrize("name", FAMILIES)
def test_difficulty_follows_the_feedback(name):
    rungs = ladder(FAMILIES[name])
    start = rungs.index(first_design(FAMILIES[name]))
    assert len({design.model_dump_json() for design in rungs}) == len(rungs)
    assert after(name) == [rungs[start]]
    up = len(rungs) - 1 - start
    assert after(name, *["too easy: x"] * up) == list(rungs[start:])
    assert after(name, *["too hard: x"] * start) == list(rungs[start::-1])
    with pytest.raises(DesignError, match="hardest difficulty reached, still too easy: x"):
        after(name, *["too easy: x"] * (up + 1))
    with pytest.raises(DesignError, match="easiest difficulty reached, still too hard: x"):
        after(name, *["too hard: x"] * (start + 1))


def test_it_does_not_go_back_and_forth():
    with pytest.raises(DesignError, match="no difficulty between 2 and 3: too hard: y"):
        after("verify_before_acting", "too easy: x", "too hard: y")


def test_a_failed_gate_is_not_mended_by_difficulty():
    with pytest.raises(DesignError, match="no difficulty mends this: gate no_leak failed"):
        after("verify_before_acting", "gate no_leak failed: it tells")


def test_an_unknown_capability_is_named_with_what_there_is():
    with pytest.raises(DesignError, match="no generator for capability 'polite_tone': it has verify_before_acting, "):
        after("polite_tone")


def test_another_targets_tools_are_refused():
    class Airline(Helpdesk):
        def environment(self, split):
            desk = super().environment(split)
            desk.tools = desk.tools[:1]
            return desk

    other = make_brief(Candidate(name="compute_over_values", description=""), "airline", Airline())
    with pytest.raises(DesignError, match="cannot serve target 'airline': it has no tool 'cancel_order'"):
        RulesDesigner().design(other, ())
