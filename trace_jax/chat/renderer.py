"""Chat to tokens and back, without ever tokenising the same text twice."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, Self

from tokenizers import Tokenizer

from trace_jax.chat.codec import Codec, RenderError
from trace_jax.chat.tokenizer import SPECIAL_TOKENS
from trace_jax.contract.trajectory import Message, Tool, ToolCall

_MAX_DEPTH = 64  # levels of nesting; pydantic reads back 200 at most, of which a trajectory takes its own


class Renderer(Protocol):
    """The token form of one model family's conversations.

    Attributes:
        stop_token_ids: a turn ends with any of them.
        tags: text by which ``parse`` tells a turn's parts; a stream holds back what may be the beginning of one.
        chat_template_kwargs: with which the family's template writes the same ``prompt``.
    """

    stop_token_ids: tuple[int, ...]
    tags: tuple[str, ...]
    chat_template_kwargs: Mapping[str, bool]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        ...

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message`` after the header, stop token included."""
        ...

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows sampled tokens: the end of a turn that was cut, ``messages``, and the next assistant header.

        None where the family's template leaves out something that stands before it: a new context then begins, with the
        ``prompt`` of the whole conversation. ``history`` is the conversation up to and including the sampled turn.
        """
        ...

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. Never fails: what is no valid call stays in ``raw_arguments``.

        Thinking stays in the content, as sampled.
        """
        ...

    def spoken(self, message: Message) -> Message:
        """The assistant's ``message`` as an environment, or a client, hears it: without its thinking.

        This and ``thinking`` only ever grow while a turn is sampled, but for white space and ``tags`` at their end.
        """
        ...

    def thinking(self, message: Message) -> str:
        """What the assistant thought in ``message``, without tags; empty if nothing."""
        ...

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """A ``message`` that was ``spoken``, with the thinking that led to it; itself if such a model never thinks."""
        ...

    def without_thinking(self) -> "Renderer":
        """The renderer whose ``prompt`` is answered without thinking first; itself if that is this one."""
        ...


def read_arguments(text: str) -> dict[str, Any] | None:
    """``text`` as a JSON object that any reader of the file reads again, or None.

    Refused are lone surrogates, NaN and infinity, more than 64 levels of nesting, and integers beyond 64 bits.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        text_of(value).encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError, for lone surrogates, is a ValueError
        return None
    return value if isinstance(value, dict) and _bounded(value, _MAX_DEPTH) else None


def text_of(arguments: Any) -> str:
    """Compact JSON, the one form in which arguments are written."""
    return json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)


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


def write_call(call: ToolCall) -> str:
    """A tool call as text, ``NAME ARGUMENTS``. Raises RenderError for a name that could not be read back."""
    if call.name.split() != [call.name]:
        raise RenderError(f"tool name {call.name!r} is empty or holds white space: rename the tool")
    return f"{call.name} {call.raw_arguments or '' if call.arguments is None else text_of(call.arguments)}"


def read_call(number: int, text: str) -> ToolCall:
    """The turn's call ``number`` from its text. Arguments that are no JSON object stay in ``raw_arguments``."""
    name, _, written = text.partition(" ")
    arguments = read_arguments(written)
    return ToolCall(
        id=f"call_{number}", name=name, arguments=arguments, raw_arguments=written if arguments is None else None
    )


class NoThinking:
    """What a ``Renderer`` says of thinking in a family whose models never do."""

    tags: tuple[str, ...] = ()
    chat_template_kwargs: Mapping[str, bool] = MappingProxyType({})

    def spoken(self, message: Message) -> Message:
        """``message`` itself."""
        return message

    def thinking(self, message: Message) -> str:
        """Nothing."""
        return ""

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """``message`` itself."""
        return message

    def without_thinking(self) -> Self:
        """This one."""
        return self


class TinyRenderer(NoThinking):
    """The chat form of the tiny agents.

    Prompt ``<|system|>S<|end|><|user|>U<|end|><|assistant|>``; an assistant turn is text, or any number of
    ``<|call|>name {"compact":"json"}``, or text and then calls, closed by ``<|end|>``; a tool result is
    ``<|tool|>content<|end|>``. Tool schemas are not rendered: a tiny agent has learnt its tools.

    Args:
        tokenizer: must hold ``SPECIAL_TOKENS`` and give back any text it encodes (byte-level BPE does).
    """

    def __init__(self, tokenizer: Tokenizer):
        self._codec = Codec(tokenizer, SPECIAL_TOKENS)
        self._id = self._codec.id
        self._header = {role: self._id[f"<|{role}|>"] for role in ("system", "user", "assistant", "tool")}
        self._end, self._call = self._id["<|end|>"], self._id["<|call|>"]
        self.pad_token_id = self._id["<|pad|>"]
        self.stop_token_ids: tuple[int, ...] = (self._end,)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        return (*self._turns(messages), self._header["assistant"])

    def assistant(self, message: Message) -> tuple[int, ...]:
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        ids = self._codec.encode(message.content or "")
        for call in message.tool_calls:
            ids += [self._call, *self._codec.encode(write_call(call))]
        return (*ids, self._end)

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...]:
        cut = not completion_ids or completion_ids[-1] != self._end
        for message in messages:
            if message.role == "assistant":
                raise RenderError("a continuation holds tool, user and system messages, not the assistant's own")
        return (*((self._end,) if cut else ()), *self._turns(messages), self._header["assistant"])

    def parse(self, token_ids: Sequence[int]) -> Message:
        ids = list(token_ids[:-1] if token_ids and token_ids[-1] == self._end else token_ids)
        parts: list[list[int]] = [[]]
        for index in ids:
            if index == self._call:
                parts.append([])
            else:
                parts[-1].append(index)
        content = self._codec.decode(parts[0]) or None
        calls = tuple(read_call(number, self._codec.decode(part)) for number, part in enumerate(parts[1:]))
        return Message(role="assistant", content=content, tool_calls=calls)

    def _turns(self, messages: Iterable[Message]) -> list[int]:
        ids: list[int] = []
        for message in messages:
            ids.append(self._header[message.role])
            if message.role == "assistant":
                ids += self.assistant(message)
            else:
                ids += [*self._codec.encode(message.content or ""), self._end]
        return ids
