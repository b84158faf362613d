"""Answers tool calls on a state, as a tool server would."""

import json
from collections.abc import Callable, Container
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.kit.tools import ToolError, state_tools
from trace_jax.environments.unreadable import one_line, unreadable


def run_call(state: object, call: ToolCall, offered: Container[str] | None = None) -> Any:
    """The result of one call, as JSON values; the state may change. ``offered`` are the allowed names, None for all.

    Raises ToolError, with one line for the agent, for an unknown tool, for arguments that do not fit, and when the tool
    itself refuses. Whatever else a tool raises is a fault of the tool, and is not caught.
    """
    declared = state_tools(type(state))  # type: ignore[arg-type]  # a class can be hashed
    known = {name: each for name, each in declared.items() if offered is None or name in offered}
    if (problem := unreadable(call, tuple(known))) is not None:
        raise ToolError(problem)
    called = known[call.name]
    try:
        arguments = called.arguments.model_validate_json(json.dumps(call.arguments), strict=True)
    except ValidationError as error:
        raise ToolError(one_line(f"arguments of {call.name} do not fit: {_breach(error)}")) from None
    given = {name: getattr(arguments, name) for name in called.arguments.model_fields}
    return called.result.dump_python(getattr(state, called.method)(**given), mode="json", warnings="error")


def compact(result: Any) -> str:
    """A JSON value as compact JSON."""
    return json.dumps(result, separators=(",", ":"), ensure_ascii=False)


def refusal(problem: str) -> str:
    """``{"error": problem}``."""
    return compact({"error": problem})


def answer(
    state: object,
    call: ToolCall,
    offered: Container[str] | None = None,
    *,
    tool_text: Callable[[Any], str] = compact,
    error_text: Callable[[str], str] = refusal,
) -> Message:
    """The tool message that answers a call: the text of its result, or of the problem if it is refused."""
    try:
        content = tool_text(run_call(state, call, offered))
    except ToolError as refused:
        content = error_text(str(refused))
    return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)


def as_json(state: Any) -> dict[str, Any]:
    """A copy of a state dataclass as JSON values."""
    copied: dict[str, Any] = to_jsonable_python(state)
    return copied


def _breach(error: ValidationError) -> str:
    """The first breach, worded as a JSON Schema validator would: its place, then what is wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    *parents, last = first["loc"] or ("",)
    if first["type"] == "missing":
        return f"{_path(parents)}: {last!r} is a required property"
    if first["type"] == "extra_forbidden":
        return f"{_path(parents)}: {last!r} was unexpected"
    message = first["msg"].replace("Input should", "should", 1)
    return f"{_path(first['loc'])}: {first['input']!r} {message}"


def _path(loc: Any) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
