"""Checks a tool call, and says what is wrong with it as a tool server would."""

import json
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry

from trace_jax.contract.trajectory import Tool, ToolCall

_NOWHERE: Registry[Any] = Registry()  # of schemas that a $ref may refer to: none, so nothing is ever fetched
_LONGEST = 300  # characters: an agent's context is short, and a problem may quote all of the arguments


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
    if call.name not in schemas:
        return _one_line(f"no tool {call.name[:60]!r}: use one of {', '.join(schemas)}")
    if call.arguments is None:
        return _one_line(f"arguments of {call.name} are not a JSON object: {_flaw(call.raw_arguments or '')}")
    try:
        validator = Draft202012Validator(schemas[call.name], registry=_NOWHERE)
        breach = best_match(validator.iter_errors(call.arguments))
    except Exception as fault:  # a faulty schema may raise anything in the library
        return _one_line(f"the schema of {call.name} is faulty, mend the tool: {type(fault).__name__}: {fault}")
    if breach is None:
        return None
    return _one_line(f"arguments of {call.name} do not fit: {breach.json_path}: {breach.message}")


def _flaw(written: str) -> str:
    try:
        value = json.loads(written)
    except json.JSONDecodeError as error:
        shown = written if len(written) <= 20 else f"{written[:20]}…"
        return f"{error.msg} at character {error.pos} of {shown!r}"
    except RecursionError:
        return "nested too deeply"
    if isinstance(value, dict):
        return "it holds NaN, infinity, half a character, an integer beyond 64 bits or more than 64 levels"
    return f"it is {json.dumps(value)}"


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
