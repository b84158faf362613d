"""Gymnasium environments of texts as targets, in this process and in workers."""

import json
from dataclasses import replace

import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.checks.quick import static_findings
from trace_jax.environments.checks.scripted import bad_calls, do_nothing, play
from trace_jax.environments.hosts.opened import open_target, open_unchecked
from trace_jax.environments.registry import is_environment
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError

pytest.importorskip("gymnasium")
SETTINGS = TargetSettings(environment="gymnasium:gymnasium_words:Word-v0", parameters='{"returns": [-3, 1]}')


def said(text):
    return Message(role="assistant", content=text)


@pytest.mark.parametrize("workers", [0, 1])
def test_text_is_the_action_and_the_return_is_the_reward(workers):
    assert not is_environment(SETTINGS.environment)
    target = open_target(replace(SETTINGS, workers=workers))
    task = target.tasks("held_out")[3]
    environment = target.environment("held_out")
    opening = environment.reset(task).messages[0].content
    assert target.environment("held_out").reset(task).messages[0].content == opening
    assert target.environment("held_out").reset(task + 1).messages[0].content != opening
    assert not environment.step(said("what?")).done
    word = opening.removeprefix("Say ").removesuffix(".")
    assert environment.step(said(word)).done
    outcome = environment.grade()
    assert (outcome.reward, outcome.components) == (0.75, {"return": 0.0})


def test_a_call_gets_an_error_and_is_no_action():
    environment = open_target(SETTINGS).environment("train")
    environment.reset(0)
    calls = tuple(ToolCall(id=name, name=name, arguments={}) for name in ("look", "go"))
    answers = environment.step(Message(role="assistant", content="w1", tool_calls=calls)).messages
    assert [answer.tool_call_id for answer in answers] == ["look", "go"]
    assert answers[0].content == json.dumps({"error": "no tool 'look': there are no tools here, so write text"})
    assert environment.grade().components == {"return": 0.0}


def test_the_checks_of_targets_play_it():
    target = open_unchecked(SETTINGS)
    episodes = [play(lambda: target.environment("train"), 0, script) for script in (do_nothing, bad_calls)]
    assert [episode.error for episode in episodes] == [None, None]
    assert [finding.verdict for finding in static_findings(target, "gymnasium")] == ["ok"] * 5


def test_a_return_outside_the_declared_range_is_an_error_and_never_clipped():
    environment = open_target(replace(SETTINGS, parameters='{"returns": [0, 1]}')).environment("train")
    environment.reset(0)
    environment.step(said("what?"))
    with pytest.raises(ValueError, match=r"the return -1 is outside the declared range \[0, 1\]"):
        environment.grade()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parameters": "{}"}, "declare the least and greatest return of an episode"),
        ({"parameters": '{"returns": [1, 0]}'}, "give two finite numbers, the smaller first"),
        ({"environment": "gymnasium:gymnasium_words:Numbers-v0"}, "its action space is Discrete(3), not Text"),
        ({"environment": "gymnasium:gymnasium_words:Wrd-v0"}, "Wrd"),
        ({"environment": "gymnasium:no_such_module:Word-v0"}, "no_such_module"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(changes, expected):
    with pytest.raises(UserError) as caught:
        open_target(replace(SETTINGS, **changes))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
