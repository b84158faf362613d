"""Stop strings are found wherever a text is cut, and no character is looked at twice."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trace_jax.gateway.stop_strings import StopMatcher, first_stop

letters = st.text("ab", max_size=30)
stops = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def complete_first(text, stops):
    """Where the stop begins that is complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return end - max(map(len, ending))
    return None


@given(st.lists(letters, max_size=5), stops)
@example(["aab", "aabaaa"], ["aabaaa"])
@example(["abcd"], ["bc", "abcd"])
def test_the_first_complete_one_is_found_wherever_the_text_is_cut(parts, stops):
    matcher, text = StopMatcher(stops), "".join(parts)
    for number, part in enumerate(parts):
        matcher.feed(part)
        assert matcher.found == complete_first("".join(parts[: number + 1]), stops)
    assert first_stop(text, stops) == complete_first(text, stops)


@given(letters, stops)
def test_what_may_begin_a_stop_is_held_back(text, stops):
    matcher = StopMatcher(stops)
    matcher.feed(text)
    if matcher.found is None:
        begun = [n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n])]
        assert matcher.held == max(begun, default=0)


class Counted(str):
    """Text that counts how often it is indexed."""

    looks = 0

    def __getitem__(self, index):
        Counted.looks += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("size", [1 << 10, 1 << 14])
def test_the_work_grows_with_the_text_and_not_with_the_stop(size):
    Counted.looks = 0
    matcher = StopMatcher([Counted("a" * 255 + "b")])
    for _ in range(size):
        matcher.feed("a")
    assert matcher.found is None and matcher.held == 255
    assert Counted.looks < 5 * size + 2000
