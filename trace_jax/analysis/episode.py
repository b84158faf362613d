"""What a detector reads: an episode cut into turns. A turn is a user message and all that the agent did about it.

Only messages, tool calls and their results are kept. Rewards and checks are not, so that no label can depend on the
outcome.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trace_jax.analysis.effects import tool_kinds
from trace_jax.analysis.tool_names import Kind
from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.contract.trajectory import Message, ToolCall, Trajectory
from trace_jax.errors import UserError

_SUBJECT = re.compile(r"\bSubject: [^.\n]*[.\n]\s*")
_ERROR = re.compile(r"\s*(?:\w*error\b|traceback\b|exception\b|failed to\b|invalid\b)", re.IGNORECASE)
_STOP = re.compile(r"###[A-Z-]+###")


@dataclass(frozen=True)
class Call:
    """A tool call with its result. ``value`` is the result parsed as JSON, None where it is no JSON.

    ``turn`` and ``order`` count from 0; ``kind`` is what the tool does.
    """

    name: str
    arguments: dict[str, Any] | None
    result: str
    value: Any
    failed: bool
    turn: int
    order: int
    kind: Kind


@dataclass(frozen=True)
class Turn:
    """``request`` is the user's text without subject line and stop marks; ``replies`` the agent's texts in order."""

    number: int
    request: str
    calls: tuple[Call, ...]
    replies: tuple[str, ...]

    @property
    def reply(self) -> str:
        """All the agent said in this turn."""
        return "\n".join(self.replies)

    @property
    def writes(self) -> tuple[Call, ...]:
        """The calls that changed something."""
        return tuple(call for call in self.calls if call.kind == "write" and not call.failed)


@dataclass(frozen=True)
class Episode:
    """A trajectory as detectors see it. ``kinds``: what each tool does that is offered or called in the sample."""

    id: str
    policy: str
    turns: tuple[Turn, ...]
    kinds: Mapping[str, Kind]

    @cached_property
    def write_tools(self) -> frozenset[str]:
        """The tools of the sample that change something."""
        return frozenset(name for name, kind in self.kinds.items() if kind == "write")

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """All calls in order."""
        return tuple(call for turn in self.turns for call in turn.calls)

    def reads_before(self, order: int) -> tuple[Call, ...]:
        """Successful reads that came before call number ``order``."""
        return tuple(call for call in self.calls if call.order < order and call.kind == "read" and not call.failed)

    def later(self, turn: int) -> tuple[Call, ...]:
        """Calls of ``turn`` and of all turns after it."""
        return tuple(call for call in self.calls if call.turn >= turn)


def _parse(text: str) -> Any:
    """``text`` as JSON; None if it is none, or is nested deeper than any record."""
    try:
        value, _ = storable(parse_json("tool result", text.encode(errors="replace"), "read as text"))
    except (UserError, TooDeepError):
        return None
    return value


def reports_error(result: str) -> bool:
    """True if the result of a call says that the call failed."""
    return _is_error(result, _parse(result))


def _is_error(text: str, value: Any) -> bool:
    """True if a result says that the call failed: in the ways that tool servers say it, never by a record's content."""
    if isinstance(value, dict):
        said = any(value.get(key) for key in ("error", "isError", "is_error", "exception"))
        return said or value.get("success") is False or value.get("ok") is False or value.get("status") == "error"
    return _ERROR.match(value if isinstance(value, str) else text) is not None


def read_episode(trajectory: Trajectory, kinds: Mapping[str, Kind] | None = None) -> Episode:
    """Cut a trajectory into turns. Messages before the first user message open a turn without request.

    ``kinds``: what each tool does; None to go by this trajectory alone.
    """
    kinds = tool_kinds([trajectory]) if kinds is None else kinds
    policy: list[str] = []
    requests: list[str] = [""]
    calls: list[list[Call]] = [[]]
    replies: list[list[str]] = [[]]
    pending: list[ToolCall] = []
    order = 0
    for message in trajectory.messages:
        if message.role == "system":
            policy.append(message.content or "")
        elif message.role == "user" and not message.tool_calls:
            if not (message.content or "").strip():
                continue  # silence in a voice simulation
            requests.append(_STOP.sub("", _SUBJECT.sub("", message.content or "")).strip())
            calls.append([])
            replies.append([])
        elif message.role == "assistant":
            pending.extend(message.tool_calls)
            if message.content:
                replies[-1].append(message.content)
        elif message.role == "tool" and pending:
            call = answered(pending, message)
            if call is None:
                continue
            text = message.content or ""
            value = _parse(text)
            failed = _is_error(text, value)
            turn, kind = len(requests) - 1, kinds[call.name]
            calls[-1].append(Call(call.name, call.arguments, text, value, failed, turn, order, kind))
            order += 1
    turns = tuple(
        Turn(number, request, tuple(turn_calls), tuple(turn_replies))
        for number, (request, turn_calls, turn_replies) in enumerate(zip(requests, calls, replies, strict=True))
    )
    return Episode(trajectory.id, "\n".join(policy), turns, kinds)


def answered(pending: list[ToolCall], answer: Message) -> ToolCall | None:
    """Take the call that ``answer`` belongs to off the list: by id, or the oldest when the answer carries none."""
    if answer.tool_call_id is None:
        return pending.pop(0)
    for number, call in enumerate(pending):
        if call.id == answer.tool_call_id:
            return pending.pop(number)
    return None  # the result of somebody else's call, such as the user's own device


def read_episodes(trajectories: Sequence[Trajectory]) -> tuple[Episode, ...]:
    """All episodes, each knowing what every tool does that is offered to, or called by, the agent in any of them."""
    kinds = tool_kinds(trajectories)
    return tuple(read_episode(trajectory, kinds) for trajectory in trajectories)
