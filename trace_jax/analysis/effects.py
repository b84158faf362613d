"""What tools do, as their author declares; else observed: a read gives another result after a tool was called.

Names say it too, but a stranger's ``appointment`` or ``sync`` may be either. Evidence counts only where it is clear:

- The same read with the same arguments gives another result, and a single other tool was called in between: it writes.
- The same read gives the same result, and a tool was called in between that shares a value with it: it changed nothing
  there.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trace_jax.analysis.tool_names import Kind, kind_of, named_kind
from trace_jax.contract.trajectory import Effect, Message, ToolCall, Trajectory

_MIN_CHANGES = 2  # observed changes from which a tool is a write, whatever its name says
_MIN_UNCHANGED = 5  # observations without a change from which a tool whose name says nothing is a read


@dataclass
class _Observed:
    changes: Counter[str] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    volatile: set[str] = field(default_factory=set)


def tool_kinds(trajectories: Sequence[Trajectory]) -> dict[str, Kind]:
    """The kind of every tool that is offered or called in ``trajectories``.

    As it is declared (``Tool.effect``), else by its observed effects, else by name and text. That a tool hands over to
    a human or notes a thought, only its name can say.
    """
    described = {tool.name: tool.description for trajectory in trajectories for tool in trajectory.tools}
    declared = {tool.name: tool.effect for trajectory in trajectories for tool in trajectory.tools if tool.effect}
    observed = _Observed()
    for trajectory in trajectories:
        for message in trajectory.messages:
            for call in message.tool_calls:
                described.setdefault(call.name, "")
        _observe(_answers(trajectory.messages), observed)
    return {name: _kind(name, text, declared.get(name), observed) for name, text in described.items()}


def _kind(name: str, description: str, declared: Effect | None, observed: _Observed) -> Kind:
    named = named_kind(name)
    if named in ("handoff", "scratch"):
        return named
    if declared is not None:
        return declared
    if named == "write":
        return named
    if observed.changes[name] >= _MIN_CHANGES and name not in observed.volatile:
        return "write"
    if named is None and not observed.changes[name] and observed.unchanged[name] >= _MIN_UNCHANGED:
        return "read"
    return kind_of(name, description)


def _answers(messages: Iterable[Message]) -> list[tuple[ToolCall, str]]:
    """Calls that were answered, with the result."""
    pending: dict[str, ToolCall] = {}
    answers = []
    for message in messages:
        pending.update({call.id: call for call in message.tool_calls if message.role == "assistant"})
        if message.role == "tool" and message.tool_call_id in pending:
            answers.append((pending.pop(message.tool_call_id), message.content or ""))
    return answers


def _observe(answers: Sequence[tuple[ToolCall, str]], observed: _Observed) -> None:
    last: dict[str, int] = {}
    for number, (call, result) in enumerate(answers):
        key = f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"
        earlier = last.get(key)
        last[key] = number
        if earlier is None:
            continue
        between = [other for other, _ in answers[earlier + 1 : number] if other.name != call.name]
        names = {other.name for other in between}
        if answers[earlier][1] == result:
            values = _values(call.arguments)
            observed.unchanged.update({other.name for other in between if values & _values(other.arguments)})
        elif len(names) == 1:
            observed.changes.update(names)
        elif not names:
            observed.volatile.add(call.name)


def _values(arguments: Mapping[str, object] | None) -> set[str]:
    """The texts among the arguments."""
    return {value for value in (arguments or {}).values() if isinstance(value, str)}
