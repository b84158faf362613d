"""Says what is wrong with a tool call whose name or arguments cannot even be read. Needs no package but pydantic."""

import json
from collections.abc import Sequence

from trace_jax.contract.trajectory import ToolCall

_LONGEST = 300  # characters: an agent's context is short, and a problem may quote all of the arguments


def unreadable(call: ToolCall, names: Sequence[str]) -> str | None:
    """One line that tells the agent what to mend if there is no such tool or the arguments are no JSON object."""
    if call.name not in names:
        instead = f"use one of {', '.join(names)}" if names else "there are no tools here, so write text"
        return one_line(f"no tool {call.name[:60]!r}: {instead}")
    if call.arguments is None:
        return one_line(f"arguments of {call.name} are not a JSON object: {_flaw(call.raw_arguments or '')}")
    return None


def one_line(text: str) -> str:
    """``text`` in one line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


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
