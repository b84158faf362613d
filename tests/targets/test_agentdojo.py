"""Claims about AgentDojo alone: related tasks are in one split, and episodes begin as the benchmark's do."""

import pytest
from foreign import conformance

PARTS = ("related", "facts", "unlike", "endless")


@pytest.fixture(scope="module")
def parts():
    return dict(zip(PARTS, conformance("agentdojo", *PARTS), strict=True))


def test_tasks_that_are_made_of_others_are_in_their_split(parts):
    found, facts = parts["related"], parts["facts"]
    split_of = {task: split for split, tasks in facts["splits"].items() for task in tasks}
    assert len(found["links"]) == 22
    for whole, part in found["links"]:
        assert split_of[whole] == split_of[part]
    for suite, groups in found["table"].items():
        for group in groups:
            assert len({split_of[f"{suite}/user_task_{number}"] for number in group}) == 1


def test_episodes_begin_as_the_benchmarks_do(parts):
    assert parts["unlike"]["states"] == []
    assert not parts["unlike"]["system"]


def test_the_sixteenth_message_with_calls_ends_the_episode(parts):
    assert parts["endless"]["messages"] == 16
    assert not parts["endless"]["answered"]
