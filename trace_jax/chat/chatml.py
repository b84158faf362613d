"""The ChatML form of conversations, for models whose own template knows no tools: calls are plain text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from trace_jax.chat.codec import Codec, RenderError
from trace_jax.chat.renderer import NoThinking, read_call, text_of, write_call
from trace_jax.contract.trajectory import Message, Tool

START, END = "<|im_start|>", "<|im_end|>"
_CALL = re.compile(r"(?:^|(?<=\n))/")  # a slash that begins a line


class ChatMLRenderer(NoThinking):
    """Turns are ``<|im_start|>ROLE\\nCONTENT<|im_end|>\\n``, token for token as the family's template writes them.

    The tools stand at the end of the first system message, a line each (see ``signature``). An assistant turn is text,
    or calls ``/name {"compact":"json"}`` of one line each, or text and then calls. What begins a line with a slash is a
    call: if its arguments are no JSON object, they stay in ``raw_arguments``, and the environment answers as to any bad
    call. A default system message is never put in.

    Args:
        tokenizer: must hold ``START`` and ``END`` as special tokens, and give back any text that it encodes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._codec = Codec(tokenizer, (START, END))
        self._start, self._end = self._codec.id[START], self._codec.id[END]
        self._newline = tuple(self._codec.encode("\n"))
        self._header = (self._start, *self._codec.encode("assistant\n"))
        self.stop_token_ids: tuple[int, ...] = (self._end,)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        return (*self._turns(with_tools(messages, tools)), *self._header)

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message``, stop token included.

        Raises RenderError for a message that would not be read back equal: text or arguments with a line that begins
        with a slash, a tool name that is empty or holds white space.
        """
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        calls = [f"/{write_call(call)}" for call in message.tool_calls]
        content = message.content or ""
        text = "\n".join([content, *calls] if content else calls)
        if _CALL.search(content) or len(_CALL.findall(text)) != len(calls):
            raise RenderError(
                f"message {text[:60]!r} holds a line with a slash that begins no call: write it otherwise"
            )
        return (*self._codec.encode(text), self._end)

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...]:
        """What follows sampled tokens: the end of a turn that was cut, ``messages``, and the next assistant header."""
        for message in messages:
            if message.role == "assistant":
                raise RenderError("a continuation holds tool, user and system messages, not the assistant's own")
        cut = not completion_ids or completion_ids[-1] != self._end
        return (*((self._end,) if cut else ()), *self._newline, *self._turns(messages), *self._header)

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. Never fails."""
        text = self._codec.decode(token_ids[:-1] if token_ids and token_ids[-1] == self._end else token_ids)
        said, *written = _CALL.split(text)
        if written:  # each call is the last thing on its line
            said, written = said.removesuffix("\n"), [*(w.removesuffix("\n") for w in written[:-1]), written[-1]]
        calls = tuple(read_call(number, call) for number, call in enumerate(written))
        return Message(role="assistant", content=said or None, tool_calls=calls)

    def _turns(self, messages: Iterable[Message]) -> list[int]:
        ids: list[int] = []
        for message in messages:
            if message.role == "assistant":
                ids += [*self._header, *self.assistant(message), *self._newline]
            else:  # role and content are one text to the template's tokenizer, which may join what meets between them
                text = self._codec.encode(f"{message.role}\n{message.content or ''}")
                ids += [self._start, *text, self._end, *self._newline]
        return ids


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

    Optional arguments are marked ``"name"?``; a type is its JSON Schema's, an enumeration its values.
    """
    required = tool.parameters.get("required", ())
    arguments = ",".join(
        f'"{name}"{"" if name in required else "?"}:{_kind(schema)}'
        for name, schema in tool.parameters.get("properties", {}).items()
    )
    return f"/{tool.name} {{{arguments}}} {tool.description}"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "|".join(map(text_of, schema["enum"]))
    if "properties" in schema or not isinstance(schema.get("type"), str):
        return text_of(schema)  # no short form says the same
    if schema["type"] == "array" and "items" in schema:
        return f"[{_kind(schema['items'])}]"
    return str(schema["type"])
