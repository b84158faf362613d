"""The token form of the tiny agents, whose tokenizer has special tokens for roles and calls."""

from collections.abc import Collection, Iterable, Sequence

from tokenizers import Tokenizer

from trace_jax.chat.calls import read_call, write_call, written_arguments
from trace_jax.chat.codec import Codec, RenderError, require_read_back
from trace_jax.chat.renderer import NoThinking
from trace_jax.chat.tokenizer import END, SPECIAL_TOKENS
from trace_jax.contract.trajectory import Message, Tool


class TinyRenderer(NoThinking):
    """The chat form of the tiny agents.

    A prompt is ``<|system|>S<|end|><|user|>U<|end|><|assistant|>``. An assistant turn is text, or any number of
    ``<|call|>name {"compact":"json"}``, or text and then calls, closed by ``<|end|>``. A tool result is
    ``<|tool|>content<|end|>``. Tool schemas are not rendered: a tiny agent has learnt its tools.

    Args:
        tokenizer: must hold ``SPECIAL_TOKENS`` and decode every text that it encodes (byte-level BPE does).
        end_token_ids: more tokens with which the model ends a turn.
    """

    def __init__(self, tokenizer: Tokenizer, end_token_ids: Collection[int] = ()) -> None:
        self._codec = Codec(tokenizer, (END, *(token for token in SPECIAL_TOKENS if token != END)), end_token_ids)
        self._id = self._codec.id
        self._header = {role: self._id[f"<|{role}|>"] for role in ("system", "user", "assistant", "tool")}
        self._end, self._call = self._id[END], self._id["<|call|>"]
        self.pad_token_id = self._id["<|pad|>"]
        self.stop_token_ids = self._codec.stop_token_ids

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn."""
        return (*self._turns(messages), self._header["assistant"])

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message``, stop token included.

        Raises RenderError for a message that would not be read back equal, such as a tool name with white space.
        """
        if message.role != "assistant":
            raise RenderError(f"expected an assistant message, got role {message.role!r}")
        ids = tuple(self._assistant(message.content, [write_call(call) for call in message.tool_calls]))
        require_read_back(message, self.parse(ids))
        return ids

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows a sampled turn; None if it ended with a stop token other than ``<|end|>``."""
        end = self._codec.closing(completion_ids, messages)
        return None if end is None else (*end, *self._turns(messages), self._header["assistant"])

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. It never fails."""
        parts: list[list[int]] = [[]]
        for index in self._codec.said(token_ids):
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
            if message.role == "assistant":  # also one that ``assistant`` refuses: a model, or a client, has said it
                calls = [f"{call.name} {written_arguments(call)}" for call in message.tool_calls]
                ids += self._assistant(message.content, calls)
            else:
                ids += [*self._codec.encode(message.content or ""), self._end]
        return ids

    def _assistant(self, content: str | None, calls: Iterable[str]) -> list[int]:
        ids = self._codec.encode(content or "")
        for call in calls:
            ids += [self._call, *self._codec.encode(call)]
        return [*ids, self._end]
