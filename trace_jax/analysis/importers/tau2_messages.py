"""The messages of a τ²-bench simulation → messages of a trajectory, and back."""

from collections.abc import Iterator, Sequence
from typing import Any

from trace_jax.analysis.importers.episodes import scrub
from trace_jax.analysis.importers.tau2_shapes import Call, Simulation, Speech, Tick, ToolResult, ToolResults
from trace_jax.contract.trajectory import Message, ToolCall


def scrub_raw_data(value: Any) -> Any:
    """``value`` without credentials in what providers answered (``raw_data``), at any depth."""
    if isinstance(value, dict):
        return {key: scrub(child) if key == "raw_data" else scrub_raw_data(child) for key, child in value.items()}
    return [scrub_raw_data(child) for child in value] if isinstance(value, list) else value


def messages_of(simulation: Simulation) -> tuple[Message, ...]:
    """All messages of a simulation in order; those of a voice simulation are in its ticks."""
    if simulation.messages is not None:
        return tuple(message for found in simulation.messages for message in _messages(found))
    spoken = [timed for tick in simulation.ticks or () for timed in _of_tick(tick)]
    return tuple(message for _, message in sorted(spoken, key=lambda timed: timed[0]))


def _messages(found: Speech | ToolResult | ToolResults) -> Iterator[Message]:
    if isinstance(found, ToolResults):
        yield from (_result(result) for result in found.tool_messages)
    elif isinstance(found, ToolResult):
        yield _result(found)
    else:
        yield Message(role=found.role, content=found.content, tool_calls=_calls(found.tool_calls or ()))


def _of_tick(tick: Tick) -> Iterator[tuple[str, Message]]:
    """The messages of a tick with their timestamps, in the order of τ²-bench's ``Tick.get_all_messages``."""
    sides = (
        (tick.agent_chunk, tick.agent_tool_calls, tick.agent_tool_results, "assistant"),
        (tick.user_chunk, tick.user_tool_calls, tick.user_tool_results, "user"),
    )
    for chunk, calls, results, role in sides:
        if chunk or calls:
            when = chunk.timestamp if chunk and chunk.timestamp else tick.timestamp
            content = chunk.content if chunk else None
            yield when, Message.model_validate({"role": role, "content": content, "tool_calls": _calls(calls)})
        for result in results:
            yield result.timestamp or tick.timestamp, _result(result)


def _result(result: ToolResult) -> Message:
    return Message(role="tool", content=result.content, tool_call_id=result.id)


def _calls(calls: Sequence[Call]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls)


def rests_of(raw: Sequence[dict[str, Any]]) -> list[Any]:
    """What the messages of a trajectory do not hold of ``raw``, for ``rebuild``."""
    return [[_rest(part) for part in found["tool_messages"]] if _several(found) else _rest(found) for found in raw]


def _several(raw: dict[str, Any]) -> bool:
    return "tool_messages" in raw


def _rest(raw: dict[str, Any]) -> dict[str, Any]:
    """All of a message but its content and its calls' arguments, which the Message holds."""
    rest = {key: value for key, value in raw.items() if key not in ("content", "tool_calls")}
    if "raw_data" in rest:
        rest["raw_data"] = scrub(rest["raw_data"])
    calls = raw.get("tool_calls")
    kept = [{key: value for key, value in call.items() if key != "arguments"} for call in calls] if calls else calls
    return {"fields": rest, "calls": kept, "keys": list(raw)}


def rebuild(messages: Sequence[Message], rests: Sequence[Any]) -> list[dict[str, Any]]:
    """The messages of the file that ``messages`` were read from, given what ``rests_of`` kept.

    ``messages`` may begin with a system message that the file holds elsewhere.
    """
    count = sum(len(rest) if isinstance(rest, list) else 1 for rest in rests)
    queue = iter(messages[len(messages) - count :])
    return [
        {"role": "tool", "tool_messages": [_raw(next(queue), part) for part in rest]}
        if isinstance(rest, list)
        else _raw(next(queue), rest)
        for rest in rests
    ]


def _raw(message: Message, rest: dict[str, Any]) -> dict[str, Any]:
    calls = rest["calls"]
    if calls:
        calls = [{**kept, "arguments": call.arguments} for kept, call in zip(calls, message.tool_calls, strict=True)]
    known = {**rest["fields"], "content": message.content, "tool_calls": calls}
    return {key: known[key] for key in rest["keys"]}
