"""Claims: the rules designer starts in the middle, follows the verdicts, and gives up with a reason."""

import pytest

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Attempt, Design
from trace_jax.environments.helpdesk.short import ShortHelpdesk
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.registry import environment_factory
from trace_jax.synthesis.designer import DesignError, make_brief
from trace_jax.synthesis.rules import RulesDesigner


def brief(name, target_name="helpdesk", target=None):
    return make_brief(
        Candidate(name=name, description="d"), Design(entry_point=target_name, parameters={}), target or Helpdesk()
    )


def after(name, *verdicts, feedback="{verdict}: x", **target):
    """The first design, and the design after each of the verdicts."""
    attempts = ()
    designs = [RulesDesigner().design(brief(name, **target), ())]
    for number, verdict in enumerate(verdicts):
        attempts += (
            Attempt(
                round=number,
                design=designs[-1],
                gates=(),
                calibration=None,
                verdict=verdict,
                feedback=feedback.format(verdict=verdict),
            ),
        )
        designs.append(RulesDesigner().design(brief(name, **target), attempts))
    return designs


@pytest.mark.parametrize("name", Helpdesk.practised)
def test_difficulty_follows_the_verdict(name):
    practice = Helpdesk().practice_for(name)
    designs, start = practice.designs, practice.designs.index(practice.first)
    assert len({design.model_dump_json() for design in designs}) == len(designs)
    assert after(name) == [designs[start]]
    up = len(designs) - 1 - start
    assert after(name, *["too easy"] * up) == list(designs[start:])
    assert after(name, *["too hard"] * start) == list(designs[start::-1])
    with pytest.raises(DesignError, match="hardest difficulty reached, still too easy: x"):
        after(name, *["too easy"] * (up + 1))
    with pytest.raises(DesignError, match="easiest difficulty reached, still too hard: x"):
        after(name, *["too hard"] * (start + 1))


def test_only_the_verdict_decides_not_the_words_of_the_feedback():
    misleading = after("verify_before_acting", "too hard", feedback="too easy: too easy")
    assert misleading == after("verify_before_acting", "too hard")


def test_it_does_not_go_back_and_forth():
    with pytest.raises(DesignError, match="no difficulty between 2 and 3: too hard: x"):
        after("verify_before_acting", "too easy", "too hard")


@pytest.mark.parametrize("verdict", ["gate failed", "broken", None])
def test_what_is_no_matter_of_difficulty_ends_the_design(verdict):
    with pytest.raises(DesignError, match="no difficulty mends this: too easy"):
        after("verify_before_acting", verdict, feedback="too easy")


def test_an_unknown_capability_is_named_with_what_there_is():
    why = "target 'helpdesk' brings no practice for capability 'polite_tone': it has verify_before_acting, "
    with pytest.raises(DesignError, match=why):
        after("polite_tone")


class Calendar:
    """A target with the helpdesk's tools and without practice."""

    name = "calendar"
    results = Helpdesk.results

    def tasks(self, split):
        return (0, 1)

    def environment(self, split):
        return Helpdesk().environment(split)


def test_a_target_without_practice_is_named():
    why = "target 'calendar' brings no practice for capability 'compute_over_values': it has none at all"
    with pytest.raises(DesignError, match=why):
        after("compute_over_values", target_name="calendar", target=Calendar())


class Diary(Calendar):
    """A target that brings practice of its own for one capability."""

    practised = ("book_a_room",)

    def practice_for(self, capability):
        return Rooms() if capability == "book_a_room" else None


class Rooms:
    designs = tuple(Design(entry_point="diary:Rooms", parameters={"rooms": rooms}) for rooms in (1, 2, 3))
    first = designs[1]


def test_another_target_s_own_practice_is_what_is_designed():
    given = {"target_name": "diary", "target": Diary()}
    assert after("book_a_room", "too easy", **given) == list(Rooms.designs[1:])
    with pytest.raises(DesignError, match="target 'diary' brings no practice for capability 'b': it has book_a_room"):
        after("b", **given)


def test_the_short_desk_brings_what_its_tools_can_do():
    target = ShortHelpdesk()
    offered = {tool.name for tool in target.environment("train").tools}
    assert target.practised and "choose_under_constraints" not in target.practised
    for name in target.practised:
        for design in target.practice_for(name).designs:
            assert {tool.name for tool in environment_factory(design)().tools} <= offered
    assert target.practice_for("choose_under_constraints") is None
