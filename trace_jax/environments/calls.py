"""Checks a tool call, and says what is wrong with it as a tool server would."""

from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry

from trace_jax.contract.trajectory import Tool, ToolCall
from trace_jax.environments.unreadable import one_line, unreadable

_NOWHERE: Registry[Any] = Registry()  # of schemas that a $ref may refer to: none, so nothing is ever fetched


def call_error(call: ToolCall, tools: Sequence[Tool]) -> str | None:
    """One line that tells the agent how to correct ``call``, or None if it is valid for ``tools``.

    A call is invalid if there is no such tool, if its arguments are no JSON object, or if they break the tool's JSON
    Schema (the line then names the most relevant breach and its place)::

        no tool 'get_ordr': use one of get_order, refund
        arguments of refund are not a JSON object: Expecting ',' delimiter at character 18 of '{"order_id":"O41" "a…'
        arguments of refund do not fit: $.amount: '12' is not of type 'integer'

    If the schema itself is faulty, every call is invalid, and the line says why. A ``pattern`` may take time that is
    exponential in the length of an argument. Nothing here bounds it; on the main thread an episode's deadline does.
    """
    schemas = {tool.name: tool.parameters for tool in tools}
    if (problem := unreadable(call, tuple(schemas))) is not None:
        return problem
    try:
        validator = Draft202012Validator(schemas[call.name], registry=_NOWHERE)
        breach = best_match(validator.iter_errors(call.arguments))
    except Exception as fault:  # a faulty schema may raise anything in the library
        return one_line(f"the schema of {call.name} is faulty, mend the tool: {type(fault).__name__}: {fault}")
    if breach is None:
        return None
    return one_line(f"arguments of {call.name} do not fit: {breach.json_path}: {breach.message}")
