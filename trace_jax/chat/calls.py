"""Tool calls as text: how their arguments are read and written."""

import json
import math
import re
from typing import Any

from trace_jax.chat.codec import RenderError
from trace_jax.contract.trajectory import ToolCall

_MAX_DEPTH = 64  # levels of nesting; pydantic reads back 200 at most, and a trajectory adds some of its own
_CALL = re.compile(r"(\S*)\s?(.*)", re.DOTALL)


def read_object(text: str) -> dict[str, Any] | None:
    """``text`` as a JSON object that any reader of JSON reads again, or None.

    None is returned for lone surrogates, NaN and infinity, more than 64 levels of nesting, and integers beyond 64 bits.
    """
    value = _value(text)
    return value if isinstance(value, dict) else None


def read_arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a call: as ``read_object``, but ``{}`` for nothing, ``null`` and an empty string (``""``)."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    nothing = value is None or (isinstance(value, str) and not value.strip())
    return {} if nothing else read_object(text)


def text_of(value: Any) -> str:
    """Compact JSON, the form in which arguments are written. Raises RenderError for what JSON cannot hold."""
    return _written(value, (",", ":"))


def spaced_text_of(value: Any) -> str:
    """JSON with a space behind commas and colons, as chat templates write it. Raises RenderError as ``text_of``."""
    return _written(value, (", ", ": "))


def written_arguments(call: ToolCall) -> str:
    """Compact arguments of ``call``; the raw ones if they are no JSON object."""
    return call.raw_arguments or "" if call.arguments is None else text_of(call.arguments)


def call_of(number: int, name: str, arguments: str) -> ToolCall:
    """The turn's call ``number``, with ``arguments`` as written. If they are no JSON object they stay raw."""
    read = read_arguments(arguments)
    return ToolCall(id=f"call_{number}", name=name, arguments=read, raw_arguments=arguments if read is None else None)


def write_call(call: ToolCall) -> str:
    """A call as text, ``NAME ARGUMENTS``. Raises RenderError for a name that could not be read back."""
    if call.name.split() != [call.name]:
        raise RenderError(f"tool name {call.name!r} is empty or holds white space: rename the tool")
    return f"{call.name} {written_arguments(call)}"


def read_call(number: int, text: str) -> ToolCall:
    """The turn's call ``number`` from ``NAME ARGUMENTS``."""
    found = _CALL.fullmatch(text)
    assert found is not None  # the pattern matches any text
    return call_of(number, found[1], found[2])


def _value(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        text_of(value).encode()
    except (ValueError, RecursionError, RenderError):  # a lone surrogate is a UnicodeEncodeError, so a ValueError
        return None
    return value if _bounded(value, _MAX_DEPTH) else None


def _bounded(value: Any, depth: int) -> bool:
    """True if containers nest at most ``depth`` levels and every integer fits into 64 bits, signed."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_bounded(item, depth - 1) for item in items)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is out of range")
    return value


def _written(value: Any, separators: tuple[str, str]) -> str:
    try:
        return json.dumps(value, separators=separators, ensure_ascii=False)
    except RecursionError:
        raise RenderError("a tool or a call holds JSON that nests too deeply: at most 64 levels can be used") from None
    except (TypeError, ValueError) as error:
        raise RenderError(f"a tool or a call holds what JSON cannot ({error}): use JSON values only") from None
