"""The lines of a compacted episode, and how much each of them is worth."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from trace_jax.analysis.cutting import Stretch, cut, plain, stretches, used_later
from trace_jax.analysis.episode import answered, reports_error
from trace_jax.contract.trajectory import Message, ToolCall, Trajectory

_LAST_MESSAGES = 12  # the last turns are no longer than this


class Worth(IntEnum):
    """What is cut and left out first comes first."""

    RESULT = 0
    REPLY = 1
    USED_RESULT = 2  # of which later calls or replies use something
    REQUEST = 3
    CALL = 4
    LAST = 5  # what is said and called in the last turns
    DECISIVE = 6


_MARKS = {"user": "U:", "assistant": "A:", "tool": "="}
_EARLY = {"user": Worth.REQUEST, "assistant": Worth.REPLY, "tool": Worth.RESULT}
_LATE = {"user": Worth.LAST, "assistant": Worth.LAST, "tool": Worth.REQUEST}


@dataclass(frozen=True)
class Line:
    """``text`` in one line of the page, after ``mark``. ``spots`` are stretches of it that are kept longest."""

    mark: str
    text: str
    worth: Worth
    spots: tuple[Stretch, ...] = ()

    def shown(self, limit: int) -> str:
        """The line with at most ``limit`` characters of text, and a few more that say how many are left out."""
        return f"{self.mark}{cut(self.text, limit, self.spots)}"


def spelled(call: ToolCall) -> str:
    """A call as Python writes one, in one line; arguments that are no JSON object as they came."""
    if call.arguments is None:
        return plain(f"{call.name}({call.raw_arguments or ''})")
    return plain(f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})")


def episode_lines(trajectory: Trajectory) -> list[Line]:
    """All lines of an episode in order, without the policy; the checks that failed come last."""
    messages = trajectory.messages
    failed_results, failed_calls = _failures(messages)
    requests = [number for number, message in enumerate(messages) if message.role == "user"]
    late = max(requests[-2] if len(requests) > 1 else 0, len(messages) - _LAST_MESSAGES)
    last_words = {message.role: number for number, message in enumerate(messages) if message.content}
    decisive = {*failed_results, *requests[:1], last_words.get("user"), last_words.get("assistant")}
    lines = []
    used = used_later(messages)
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.content:
            text = plain(message.content)
            mark = "!" if number in failed_results else _MARKS[message.role]
            usual = (_LATE if number >= late else _EARLY)[message.role]
            spots = stretches(text, used[number]) if message.role == "tool" else ()
            worth = Worth.DECISIVE if number in decisive else max(usual, Worth.USED_RESULT) if spots else usual
            lines.append(Line(f"[{number}] {mark} ", text, worth, spots))
        for order, call in enumerate(message.tool_calls):
            key = Worth.DECISIVE if number in decisive or (number, order) in failed_calls else Worth.CALL
            mark = "U>" if message.role == "user" else ">"
            lines.append(Line(f"[{number}] {mark} ", spelled(call), max(key, Worth.LAST) if number >= late else key))
    for check in trajectory.checks:
        if not check.passed:
            lines.append(Line(f"check {plain(check.name)}: ", plain(f"failed {check.detail}"), Worth.DECISIVE))
    return lines


def _failures(messages: tuple[Message, ...]) -> tuple[set[int], set[tuple[int, int]]]:
    """Numbers of the results that report errors; and of the calls that got them or cannot be read, with their order."""
    results: set[int] = set()
    calls = {(number, order) for number, order, call in _calls(messages) if call.arguments is None}
    pending: list[ToolCall] = []
    place: dict[int, tuple[int, int]] = {}
    for number, message in enumerate(messages):
        for order, call in enumerate(message.tool_calls):
            pending.append(call)
            place[id(call)] = number, order
        if message.role == "tool":
            call_of = answered(pending, message) if pending else None
            if reports_error(message.content or ""):
                results.add(number)
                if call_of is not None:
                    calls.add(place[id(call_of)])
    return results, calls


def _calls(messages: tuple[Message, ...]) -> Iterator[tuple[int, int, ToolCall]]:
    for number, message in enumerate(messages):
        for order, call in enumerate(message.tool_calls):
            yield number, order, call
