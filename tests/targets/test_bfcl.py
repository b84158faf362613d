"""Claims about BFCL alone: its splits, the functions that are held back, and limits of a turn."""

import pytest
from foreign import conformance

PARTS = ("facts", "held_back", "endless", "silent_second_turn", "shared", "answers")


@pytest.fixture(scope="module")
def parts():
    return dict(zip(PARTS, conformance("bfcl", *PARTS), strict=True))


def test_variants_of_a_task_are_in_one_split(parts):
    found = parts["facts"]
    for split, parity in (("train", 0), ("held_out", 1)):
        tasks = [id.removeprefix("multi_turn_").rsplit("_", 1) for id in found["splits"][split]]
        assert {int(number) % 2 for _, number in tasks} == {parity}
        assert sorted({category for category, _ in tasks}) == ["base", "long_context", "miss_func", "miss_param"]
        assert [number for _, number in tasks[:8]] == [tasks[0][1]] * 4 + [tasks[4][1]] * 4


def test_a_function_that_is_held_back_is_shown_later(parts):
    found = parts["held_back"]
    assert found["tasks"] == 200
    assert found["offered_at_once"] == []
    assert found["never_shown"] == []
    assert found["text"].endswith("I have updated some more functions you can choose from. What about now?")


def test_a_turn_ends_after_twenty_one_messages_with_calls(parts):
    found = parts["endless"]
    assert found["messages"] == 21
    assert found["reward"] == 0.0
    assert "force_terminated" in found["failed"]


def test_checks_name_the_turn_and_what_differs(parts):
    found = parts["silent_second_turn"]
    assert found["failed"] == [["empty_turn_model_response", "turn 1: 0 messages with calls"]]


def test_episodes_share_neither_default_lists_nor_credit_cards(parts):
    assert parts["shared"]["mentions"] == [[], []]
    assert parts["shared"]["cards"] > 10
    assert parts["shared"]["same_cards"] == []


def test_calls_are_answered_as_by_the_benchmarks_executor(parts):
    assert parts["answers"]["compared"] > 1000
    assert parts["answers"]["differ"] == []
