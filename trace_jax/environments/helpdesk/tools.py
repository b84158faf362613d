"""Answers the desk's tool calls, in words of its own."""

import json
from collections.abc import Container
from typing import Any

from jsonschema import Draft202012Validator

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments import kit
from trace_jax.environments.helpdesk.database import Database
from trace_jax.environments.kit import ToolError

TOOLS, RESULTS = kit.tools(Database), kit.results(Database)
_VALIDATORS = {each.name: Draft202012Validator(each.parameters) for each in TOOLS}


def execute(database: Database, call: ToolCall, offered: Container[str] = frozenset(_VALIDATORS)) -> Any:
    """The result of one call. Raises ToolError for any mistake of the agent."""
    if call.name not in offered:
        raise ToolError(f"no tool {call.name}")
    if call.arguments is None:
        raise ToolError("arguments are not a JSON object")
    for problem in _VALIDATORS[call.name].iter_errors(call.arguments):
        raise ToolError(problem.message)
    return getattr(database, call.name)(**call.arguments)


def tool_message(call: ToolCall, result: Any) -> Message:
    """The message that answers a call."""
    content = json.dumps(result, separators=(",", ":"))
    return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)


def error_message(call: ToolCall, error: ToolError) -> Message:
    """The message that answers a refused call, as a real tool server would answer."""
    return tool_message(call, {"error": str(error)})
