"""What a detector reads: an episode cut into turns. A turn is a user message and all that the agent did about it.

Only messages, tool calls and their results are kept. Rewards and checks are not, so that no label can depend on the
outcome.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.contract.trajectory import Message, ToolCall, Trajectory
from trace_jax.errors import UserError

Kind = Literal["read", "write", "handoff", "scratch"]

_READ = {
    "get",
    "list",
    "search",
    "find",
    "lookup",
    "look",
    "check",
    "read",
    "view",
    "show",
    "fetch",
    "query",
    "retrieve",
}
_SCRATCH = {"calculate", "think", "compute", "note", "plan"}
_HANDOFF = {"transfer", "escalate", "handoff"}
_SUBJECT = re.compile(r"\bSubject: [^.\n]*[.\n]\s*")
_STOP = re.compile(r"###[A-Z-]+###")


def kind_of(tool: str) -> Kind:
    """Whether a tool reads, writes, hands over to a human, or notes a thought, by the first word of its name."""
    verb = tool.lower().split("_")[0]
    if verb in _READ:
        return "read"
    if verb in _SCRATCH:
        return "scratch"
    return "handoff" if verb in _HANDOFF else "write"


@dataclass(frozen=True)
class Call:
    """A tool call with its result. ``value`` is the result parsed as JSON, None where it is no JSON."""

    name: str
    arguments: dict[str, Any] | None
    result: str
    value: Any
    failed: bool
    turn: int
    order: int

    @property
    def kind(self) -> Kind:
        """What the tool does, see ``kind_of``."""
        return kind_of(self.name)


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
    """A trajectory as detectors see it. ``write_tools``: those offered or called anywhere in the sample."""

    id: str
    policy: str
    turns: tuple[Turn, ...]
    write_tools: frozenset[str] = frozenset()

    @property
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


def _is_error(text: str, value: Any) -> bool:
    return text.strip().lower().startswith("error") or (isinstance(value, dict) and bool(value.get("error")))


def read_episode(trajectory: Trajectory, write_tools: frozenset[str] = frozenset()) -> Episode:
    """Cut a trajectory into turns. Messages before the first user message open a turn without request."""
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
            call = _answered(pending, message)
            if call is None:
                continue
            text = message.content or ""
            value = _parse(text)
            failed = _is_error(text, value)
            calls[-1].append(Call(call.name, call.arguments, text, value, failed, len(requests) - 1, order))
            order += 1
    turns = tuple(
        Turn(number, request, tuple(turn_calls), tuple(turn_replies))
        for number, (request, turn_calls, turn_replies) in enumerate(zip(requests, calls, replies, strict=True))
    )
    return Episode(trajectory.id, "\n".join(policy), turns, write_tools)


def _answered(pending: list[ToolCall], answer: Message) -> ToolCall | None:
    """Take the call that ``answer`` belongs to off the list: by id, or the oldest when the answer carries none."""
    if answer.tool_call_id is None:
        return pending.pop(0)
    for number, call in enumerate(pending):
        if call.id == answer.tool_call_id:
            return pending.pop(number)
    return None  # the result of somebody else's call, such as the user's own device


def read_episodes(trajectories: tuple[Trajectory, ...]) -> tuple[Episode, ...]:
    """All episodes, each knowing the write tools that are offered to, or called by, the agent in any of them."""
    plain = [read_episode(trajectory) for trajectory in trajectories]
    names = {tool.name for trajectory in trajectories for tool in trajectory.tools}
    names |= {call.name for episode in plain for call in episode.calls}
    tools = frozenset(name for name in names if kind_of(name) == "write")
    return tuple(Episode(episode.id, episode.policy, episode.turns, tools) for episode in plain)
