"""What is recorded of each conversation, as far as it is needed to tell what a request repeats of it."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.chat.calls import text_of
from trace_jax.contract.same_message import same_text
from trace_jax.contract.trajectory import Message, Tool


@dataclass
class Transcript:
    """Digests of a conversation's last recorded request.

    Attributes:
        size: bytes that are recorded of the conversation.
        full: whether no more of it is recorded.
        messages: number of the request's messages.
        sent: digest of these.
        answered: digest of these and the answer; empty if there was not exactly one.
        tools: digest of the tools.
    """

    size: int = 0
    full: bool = False
    messages: int = 0
    sent: bytes = b""
    answered: bytes = b""
    tools: bytes = b""

    def repeats(self, messages: Sequence[Message]) -> int:
        """How many of ``messages`` are recorded already: those of the last request, with its answer or without."""
        if not self.sent or len(messages) < self.messages:
            return 0
        digest = _Digest(messages[: self.messages])
        if digest.value() != self.sent:
            return 0
        if len(messages) > self.messages:
            digest.add(messages[self.messages])
            if digest.value() == self.answered:
                return self.messages + 1
        return self.messages

    def note(self, messages: Sequence[Message], answers: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Remember a request that is recorded now."""
        digest = _Digest(messages)
        self.messages, self.sent, self.answered, self.tools = len(messages), digest.value(), b"", tools_digest(tools)
        if len(answers) == 1:
            digest.add(answers[0])
            self.answered = digest.value()


class Transcripts:
    """The transcripts of the ``limit`` conversations that were used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: OrderedDict[str, Transcript] = OrderedDict()

    def get(self, conversation: str) -> Transcript:
        """The transcript of ``conversation``, an empty one if it is new or forgotten."""
        found = self._found.pop(conversation, None) or Transcript()
        self._found[conversation] = found
        if len(self._found) > self._limit:
            self._found.popitem(last=False)
        return found

    def forget(self, conversation: str) -> None:
        """Have the conversation's next request recorded whole."""
        self._found.pop(conversation, None)


def tools_digest(tools: Sequence[Tool]) -> bytes:
    """A digest of ``tools``."""
    return hashlib.sha256(text_of([tool.offered() for tool in tools]).encode()).digest()


class _Digest:
    def __init__(self, messages: Sequence[Message]) -> None:
        self._hash = hashlib.sha256()
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        data = same_text(message).encode()
        self._hash.update(len(data).to_bytes(8, "big") + data)

    def value(self) -> bytes:
        return self._hash.digest()
