"""Claims about difficulty: one step at a time, in the direction of the verdict, and nothing that is known already."""

import pytest

from trace_jax.synthesis.llm.difficulty import next_setting
from trace_jax.synthesis.llm.form import Knob


def knobs(*sizes):
    return [
        Knob(parameter=f"p{number}", meaning="m", values=list(range(size)), first=0)
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    "tried,following",
    [
        ({(1, 1): "too easy"}, (2, 1)),
        ({(1, 1): "too hard"}, (0, 1)),
        ({(1, 1): "too easy", (2, 1): "too easy"}, (2, 2)),  # the knob that has moved least
        ({(1, 1): "too easy", (2, 1): "too hard"}, (2, 0)),  # neither as hard nor as easy as these two
        ({(1, 1): "gate failed"}, None),
        ({(1, 1): "broken"}, None),
        ({(2, 2): "too easy"}, None),
        ({(0, 0): "too hard"}, None),
        ({(2, 1): "too easy"}, (2, 2)),
    ],
)
def test_the_next_setting(tried, following):
    assert next_setting(knobs(3, 3), tried, list(tried)[-1]) == following


def test_a_setting_between_too_easy_and_too_hard_ends_the_search():
    assert next_setting(knobs(3), {(0,): "too easy", (1,): "too hard"}, (1,)) is None
    assert next_setting(knobs(4), {(0,): "too easy", (2,): "too hard"}, (2,)) == (1,)


def test_every_course_of_verdicts_ends_and_tries_nothing_twice():
    for course in range(64):
        tried, last = {}, (1, 1)
        for step in range(20):
            tried[last] = "too easy" if course >> (step % 6) & 1 else "too hard"
            following = next_setting(knobs(3, 3), tried, last)
            if following is None:
                break
            assert following not in tried
            assert sum(abs(a - b) for a, b in zip(following, last, strict=True)) == 1
            last = following
        else:
            raise AssertionError("no end")
