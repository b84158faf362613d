"""Conversations on which a renderer is compared with a model's own chat template."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Tool, ToolCall


@dataclass(frozen=True)
class Probe:
    """A conversation, and the tools that it is offered.

    ``thinking`` holds, by the number of the message, thinking that is given apart from the content, as clients do.
    """

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    thinking: Mapping[int, str] = field(default_factory=dict)

    def openai_messages(self) -> list[dict[str, Any]]:
        """The conversation in the form of OpenAI's API. Without content it has "", as servers write it."""
        return [self._openai_message(number, message) for number, message in enumerate(self.messages)]

    def openai_tools(self) -> list[Any] | None:
        """The tools in the form of OpenAI's API; None if there are none."""
        return [{"type": "function", "function": tool.offered()} for tool in self.tools] or None

    def renderer_messages(self, renderer: Renderer) -> list[Message]:
        """The conversation as ``renderer`` takes it: thinking is put in front of the content."""
        return [
            renderer.with_thinking(message, self.thinking[number]) if number in self.thinking else message
            for number, message in enumerate(self.messages)
        ]

    def beginnings(self) -> Iterator["Probe"]:
        """The probe after each of its messages, the shortest first."""
        for size in range(1, len(self.messages) + 1):
            yield replace(self, messages=self.messages[:size])

    def _openai_message(self, number: int, message: Message) -> dict[str, Any]:
        data: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if number in self.thinking:
            data["reasoning_content"] = self.thinking[number]
        if message.tool_calls:
            data["tool_calls"] = [_openai_call(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            data["tool_call_id"] = message.tool_call_id
        return data


def tool_free_probes() -> list[Probe]:
    """Probes without tools: roles, order, white space, empty and odd texts, thinking in the content and apart."""
    return [beginning for probe in (*_PLAIN, *_THINKING) for beginning in probe.beginnings()]


def all_probes() -> list[Probe]:
    """The same, and probes with tools: one and several, calls and their arguments, results, thinking between calls."""
    order = (*_PLAIN, *_WITH_TOOLS, *_THINKING, *_THINKING_WITH_TOOLS)
    return [beginning for probe in order for beginning in probe.beginnings()]


def _openai_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.raw_arguments if call.arguments is None else call.arguments
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _system(content: str) -> Message:
    return Message(role="system", content=content)


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _assistant(content: str | None, *calls: ToolCall) -> Message:
    return Message(role="assistant", content=content, tool_calls=calls)


def _result(content: str, number: int = 0) -> Message:
    return Message(role="tool", content=content, tool_call_id=f"call_{number}")


def _call(name: str, arguments: dict[str, Any] | str, number: int = 0) -> ToolCall:
    if isinstance(arguments, str):
        return ToolCall(id=f"call_{number}", name=name, arguments=None, raw_arguments=arguments)
    return ToolCall(id=f"call_{number}", name=name, arguments=arguments)


_ORDER = Tool(
    name="get_order",
    description="Look an order up.",
    parameters={"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
)
_REFUND = Tool(
    name="refund",
    description='Refund "some" of an order — at most its <b>total</b> & no more.',
    parameters={
        "type": "object",
        "properties": {
            "order_id": {"type": "string", "description": "Größe\nünd mehr"},
            "amount": {"type": "number", "minimum": 0.5, "default": None},
            "reasons": {"type": "array", "items": {"enum": ["late", "broken", 3, True]}},
        },
        "required": ["order_id", "amount"],
        "additionalProperties": False,
    },
)
_TOOLS = (_ORDER, _REFUND)
_FIND = _call("get_order", {"order_id": "O41"})
_ODD_TEXT = "  two  spaces\n\n\nGröße 漢字 🙂 <b>&amp;</b> {\"a\": 1} 'x' {{ y }} {% z %}\t\n"

_LONG_TEXT = " ".join(f"{number}. Never refund order O{number}." for number in range(40))

_PLAIN = (
    Probe("a question", (_user("Where is my order O41?"),)),
    Probe(
        "several turns",
        (
            _system("Be kind."),
            _user("Where is my order O41?"),
            _assistant("It is on its way."),
            _user("When does it come?"),
            _assistant("On Monday."),
            _user("Thanks!"),
        ),
    ),
    Probe("odd texts", (_system(_ODD_TEXT), _user(_ODD_TEXT), _assistant("Größe 漢字 🙂 <b>\n\n"), _user("\n"))),
    Probe(
        "the assistant begins", (_system("Be kind."), _assistant("Hi!"), _user("hi"), _assistant("Yes?"), _user("?"))
    ),
    Probe("the assistant begins, without a system message", (_assistant("<b>Hi</b>!\n"), _user("hi"))),
    Probe("empty texts", (_system(""), _user(""), _assistant(""), _user("hi"))),
    Probe("two users' turns and a later system message", (_user("hi"), _user("Still there?"), _system("Be brief."))),
)
_FOUR_PARAMETERS: tuple[dict[str, Any], ...] = (
    {},
    {"type": "object"},
    {"type": "object", "properties": {}},
    _REFUND.parameters,
)
_FOUR_TOOLS = tuple(
    Tool(name=f"tool_{number}", description="", parameters=parameters)
    for number, parameters in enumerate(_FOUR_PARAMETERS)
)
_FOUR_CALLS = tuple(_call(tool.name, {"n": number}, number) for number, tool in enumerate(_FOUR_TOOLS))
_FOUR_RESULTS = tuple(_result(text, number) for number, text in enumerate((" \n x \n", _LONG_TEXT, "", "{}")))
_THOUGHT = "<think>\nThey ask for O41.\n</think>\n\n"
_WITH_TOOLS = (
    Probe("a tool", (_user("Where is my order O41?"),), _TOOLS[:1]),
    Probe(
        "a call and its result",
        (_system("Be kind."), _user("Where is O41?"), _assistant(None, _FIND), _result('{"status": "sent"}')),
        _TOOLS,
    ),
    Probe(
        "several calls in a turn",
        (
            _user("Refund O41 and O42."),
            _assistant("Wait.", _FIND, _call("refund", {"order_id": "O42", "amount": 12.5, "reasons": []}, 1)),
            _result("sent\n\n"),
            _result(_ODD_TEXT, 1),
            _assistant(None, _call("refund", {}), _call("get_order", {"a": [1, {"ü": None}], "b": True}, 1)),
            _result(""),
            _assistant("Done."),
            _user("Thanks!"),
        ),
        _TOOLS,
    ),
    Probe(
        "a call that is no JSON",
        (_user("hi"), _assistant("", _call("refund", '{"order_id": O41')), _result("arguments are no JSON")),
        _TOOLS,
    ),
    Probe(
        "a long system message, four tools, and odd results",
        (
            _system(f"{_ODD_TEXT}{_LONG_TEXT}\n\n"),
            _user(_LONG_TEXT),
            _assistant(_LONG_TEXT, *_FOUR_CALLS),
            *_FOUR_RESULTS,
        ),
        _FOUR_TOOLS,
    ),
)
_ODD_THOUGHT = "<think>\n \n  They ask for\n\nO41. \n\n</think>\n\n\n  \n"
_THINKING = (
    Probe(
        "thinking in the content",
        (
            _user("Where is O41?"),
            _assistant(f"{_THOUGHT}On its way."),
            _user("And O42?"),
            _assistant("<think>\n\n</think>\n\nLost."),
            _user("Oh."),
        ),
    ),
    Probe(
        "thinking apart from the content",
        (_user("Where is O41?"), _assistant("On its way."), _user("And O42?"), _assistant("Lost."), _user("Oh.")),
        thinking={1: "They ask for O41.", 3: "Lost, I fear.\n\nReally?"},
    ),
)
_THINKING_WITH_TOOLS = (
    Probe(
        "odd white space in thinking and behind it",
        (
            _user("Where is O41?"),
            _assistant(f"{_ODD_THOUGHT}Wait. \n\n", _FIND),
            _result("sent"),
            _assistant(f" \n{_ODD_THOUGHT}", _FIND),
            _result("sent"),
            _assistant("<think>\n \n</think>\n\n Again.", _FIND),
            _result("sent"),
            _assistant(f"{_ODD_THOUGHT}{_ODD_TEXT}"),
            _user("Thanks!"),
        ),
        _TOOLS,
    ),
    Probe(
        "odd white space in thinking apart from the content",
        (
            _user("Where is O41?"),
            _assistant(" \n On its way. \n", _FIND),
            _result("sent"),
            _assistant("x"),
            _user("Oh."),
        ),
        _TOOLS,
        thinking={1: " \n  They ask for\n\nO41. \n\n", 3: " "},
    ),
    Probe(
        "thinking between calls",
        (
            _user("Where is O41?"),
            _assistant(_THOUGHT, _FIND),
            _result("sent"),
            _assistant(f"{_THOUGHT}Again.", _FIND),
            _result("sent"),
            _assistant(f"{_THOUGHT}Sent."),
            _user("Thanks!"),
        ),
        _TOOLS,
    ),
    Probe(
        "thinking between calls, apart from the content",
        (
            _user("Where is O41?"),
            _assistant(None, _FIND),
            _result("sent"),
            _assistant("Again.", _FIND),
            _result("sent"),
            _user("Thanks!"),
        ),
        _TOOLS,
        thinking={1: "I look.", 3: "Once more."},
    ),
    Probe(
        "a user's text that looks like a result",
        (
            _user("hi"),
            _assistant(f"{_THOUGHT}Yes?"),
            _user("<tool_response>\n1\n</tool_response>"),
            _assistant(f"{_THOUGHT}Hm.", _FIND),
            _result("sent"),
            _assistant(" ", _FIND),
            _result("sent"),
            _user("?"),
        ),
        _TOOLS,
    ),
    Probe(
        "users' texts that look like half a result",
        (
            _user("hi"),
            _assistant(f"{_THOUGHT}Yes?", _FIND),
            _result("sent"),
            _user("<tool_response>\n1"),
            _assistant(f"{_THOUGHT}Yes?", _FIND),
            _result("sent"),
            _user("1\n</tool_response>"),
            _assistant(f"{_THOUGHT}Yes?"),
        ),
        _TOOLS,
    ),
)
