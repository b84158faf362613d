"""The ChatML form of conversations, for models whose own template knows no tools: calls are plain text."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from trace_jax.chat.calls import read_call, text_of, write_call, written_arguments
from trace_jax.chat.codec import Codec, RenderError, require_read_back
from trace_jax.chat.renderer import NoThinking
from trace_jax.contract.trajectory import Message, Tool

START, END = "<|im_start|>", "<|im_end|>"
_CALL = re.compile(r"(?:^|(?<=\n))/")  # a slash that begins a line


class ChatMLRenderer(NoThinking):
    """Turns are ``<|im_start|>ROLE\\nCONTENT<|im_end|>\\n``, token for token as the family's template writes them.

    The tools stand at the end of the first system message, a line each (see ``signature``). An assistant turn is text,
    or calls ``/name {"compact":"json"}`` of one line each, or text and then calls. A line that begins with a slash is a
    call: if its arguments are no JSON object, they stay in ``raw_arguments``, and the environment answers as to any bad
    call.

    Args:
        tokenizer: must hold ``START`` and ``END`` as special tokens, and decode every text that it encodes.
        end_token_ids: more tokens with which the model ends a turn.
        default_system: the system message that the template puts in front of a conversation that has none.
    """

    def __init__(
        self, tokenizer: Tokenizer, end_token_ids: Collection[int] = (), default_system: str | None = None
    ) -> None:
        self._codec = Codec(tokenizer, (END, START), end_token_ids)
        self._start, self._end = self._codec.id[START], self._codec.id[END]
        self._newline = tuple(self._codec.encode("\n"))
        self._header = (self._start, *self._codec.encode("assistant\n"))
        self._default_system = default_system
        self.stop_token_ids = self._codec.stop_token_ids

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        shown = with_tools(messages, tools)
        if self._default_system is not None and shown and shown[0].role != "system":
            shown = [Message(role="system", content=self._default_system), *shown]
        return (*self._turns(shown), *self._header)

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message``, stop token included.

        Raises RenderError for a message that would not be read back equal: text or arguments with a line that begins
        with a slash, a tool name that is empty or holds white space.
        """
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        text = _assistant_text(message.content, [f"/{write_call(call)}" for call in message.tool_calls])
        if _CALL.search(message.content or "") or len(_CALL.findall(text)) != len(message.tool_calls):
            raise RenderError(
                f"message {text[:60]!r} holds a line with a slash that begins no call: write it otherwise"
            )
        ids = (*self._codec.encode(text), self._end)
        require_read_back(message, self.parse(ids))
        return ids

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows a sampled turn; None if it ended with a stop token other than ``<|im_end|>``."""
        end = self._codec.closing(completion_ids, messages)
        return None if end is None else (*end, *self._newline, *self._turns(messages), *self._header)

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. It never fails."""
        said, *written = _CALL.split(self._codec.decode(self._codec.said(token_ids)))
        if written:  # each call is the last thing on its line
            said, written = said.removesuffix("\n"), [*(w.removesuffix("\n") for w in written[:-1]), written[-1]]
        calls = tuple(read_call(number, call) for number, call in enumerate(written))
        return Message(role="assistant", content=said or None, tool_calls=calls)

    def _turns(self, messages: Iterable[Message]) -> list[int]:
        ids: list[int] = []
        for message in messages:
            if message.role == "assistant":  # also one that ``assistant`` refuses: a model, or a client, has said it
                calls = [f"/{call.name} {written_arguments(call)}" for call in message.tool_calls]
                text = self._codec.encode(_assistant_text(message.content, calls))
                ids += [*self._header, *text, self._end, *self._newline]
            else:  # role and content are encoded as one text, as the template's tokenizer does, which may join the two
                text = self._codec.encode(f"{message.role}\n{message.content or ''}")
                ids += [self._start, *text, self._end, *self._newline]
        return ids


def _assistant_text(content: str | None, calls: Sequence[str]) -> str:
    return "\n".join([content, *calls] if content else calls)


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """``messages`` with the tools at the end of a first system message, which is added if there is none."""
    if not tools:
        return list(messages)
    usage = "Tools, each called by a line of its own:\n" + "\n".join(map(signature, tools))
    if messages and messages[0].role == "system":
        first = messages[0].model_copy(update={"content": f"{messages[0].content or ''}\n{usage}".strip()})
        return [first, *messages[1:]]
    return [Message(role="system", content=usage), *messages]


def signature(tool: Tool) -> str:
    """A tool in one line: ``/refund {"order_id":string,"amount":integer} Refund an amount on an order.``

    Optional arguments are marked ``"name"?``. A type is that of the JSON Schema, an enumeration is written as its
    values. Parameters that are no object with properties are written as JSON.
    """
    properties, required = tool.parameters.get("properties", {}), tool.parameters.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return f"/{tool.name} {text_of(tool.parameters)} {tool.description}"
    arguments = ",".join(
        f'"{name}"{"" if name in required else "?"}:{_kind(schema)}' for name, schema in properties.items()
    )
    return f"/{tool.name} {{{arguments}}} {tool.description}"


def _kind(schema: Any) -> str:
    """The type of an argument: a word, an enumeration, a list of a type; JSON if no short form says the same."""
    depth = 0
    while isinstance(schema, Mapping) and not schema.keys() & {"enum", "properties"}:
        if schema.get("type") != "array" or "items" not in schema:
            break
        schema, depth = schema["items"], depth + 1
    if not isinstance(schema, Mapping):
        kind = text_of(schema)
    elif isinstance(schema.get("enum"), list):
        kind = "|".join(map(text_of, schema["enum"]))
    elif "properties" in schema or not isinstance(schema.get("type"), str):
        kind = text_of(schema)
    else:
        kind = str(schema["type"])
    return f"{'[' * depth}{kind}{']' * depth}"
