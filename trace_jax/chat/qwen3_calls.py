"""The text of Qwen3's tools and tool calls, as the family's template writes them and its models sample them."""

import json
import re
from collections.abc import Sequence

from trace_jax.chat.calls import call_of, read_object, spaced_text_of, text_of
from trace_jax.contract.trajectory import Message, Tool, ToolCall

CALL, CALL_END = "<tool_call>", "</tool_call>"
_BODY = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(.*)\}', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
_UNFINISHED = 9  # characters: the longest beginning of a JSON literal, number or escape that is no JSON yet
_JSON = json.JSONDecoder()
_TOOLS, _TOOLS_END = (
    """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
""",
    """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>""",
)


def tools_text(tools: Sequence[Tool]) -> str:
    """The part of the system turn that offers ``tools``."""
    return _TOOLS + "\n".join(map(_schema, tools)) + _TOOLS_END


def written_calls(message: Message, *, follows_text: bool) -> str:
    """The calls of a turn, with a line end in front if they follow a text."""
    calls = "\n".join(
        f'{CALL}\n{{"name": "{call.name}", "arguments": {_arguments(call)}}}\n{CALL_END}' for call in message.tool_calls
    )
    return f"\n{calls}" if calls and follows_text else calls


def split_calls(text: str, begin: int, *, ended: bool) -> tuple[list[str], list[str]]:
    """The texts around the calls in ``text[begin:]``, and the bodies of the calls: one text more than bodies.

    A call ends with the first closing tag behind its JSON: a tag inside a JSON string is text. A body that is no JSON
    ends with its first closing tag. A call without a closing tag ends with the turn, and so does, in a turn that has
    not ``ended``, a call whose JSON the tokens to come may still complete: a longer turn never takes text back.
    """
    texts, bodies = [], []
    while (start := text.find(CALL, begin)) >= 0:
        texts.append(text[begin:start])
        close = _close(text, start + len(CALL), ended)
        bodies.append(text[start + len(CALL) : close])
        begin = min(close + len(CALL_END), len(text))
    return [*texts, text[begin:]], bodies


def read_call(number: int, body: str) -> ToolCall:
    """The turn's call ``number``. A body or arguments that are no JSON object stay in ``raw_arguments``."""
    whole, found = read_object(body), _BODY.fullmatch(body)
    if whole is not None and isinstance(whole.get("name"), str):
        return call_of(number, whole["name"], text_of(whole["arguments"]) if "arguments" in whole else "")
    if whole is None and found:
        return call_of(number, found[1], found[2].strip())
    return ToolCall(id=f"call_{number}", name="", arguments=whole, raw_arguments=body if whole is None else None)


def _close(text: str, begin: int, ended: bool) -> int:
    """Where the closing tag of a call stands whose body begins at ``begin``; the end of ``text`` if there is none."""
    space = _SPACE.match(text, begin)
    assert space is not None  # the pattern matches an empty text
    try:
        _, behind = _JSON.raw_decode(text, space.end())
    except json.JSONDecodeError as error:  # at a quote: a string that may not have ended
        if not ended and (len(text) - error.pos < _UNFINISHED or text[error.pos] == '"'):
            return len(text)
        behind = begin
    except (ValueError, RecursionError):  # an integer of more digits, or deeper nesting, than Python reads
        behind = begin
    found = text.find(CALL_END, behind)
    return len(text) if found < 0 else found


def _schema(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return spaced_text_of({"type": "function", "function": function})


def _arguments(call: ToolCall) -> str:
    return call.raw_arguments or "" if call.arguments is None else spaced_text_of(call.arguments)
