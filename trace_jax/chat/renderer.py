"""What a renderer does: chat to tokens and back, without ever tokenising the same text twice."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, Self

from trace_jax.contract.trajectory import Message, Tool


class Renderer(Protocol):
    """The token form of one model family's conversations.

    Attributes:
        stop_token_ids: each of them ends a turn, and none of them is text. The template writes the first.
        tags: the text by which ``parse`` separates the parts of a turn; a stream holds back what may begin one.
        chat_template_kwargs: the arguments with which the family's template writes the same ``prompt``.
    """

    stop_token_ids: tuple[int, ...]
    tags: tuple[str, ...]
    chat_template_kwargs: Mapping[str, bool]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        """All tokens up to and including the header of the assistant's next turn.

        Raises RenderError for a text that has no tokens, and for a tool that JSON cannot hold.
        """
        ...

    def assistant(self, message: Message) -> tuple[int, ...]:
        """What a perfect sampler would emit for ``message`` after the header, stop token included.

        Raises RenderError for a message that ``parse`` would not read back equal.
        """
        ...

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        """What follows a sampled turn: its end if it was cut, ``messages``, and the next assistant header.

        None if the family's template would write something else in place of what stands before: it leaves out thinking,
        or the turn ended with a stop token that is not the template's. A new context then begins, with the ``prompt``
        of the whole conversation. ``history`` is the conversation up to and including the sampled turn.
        """
        ...

    def parse(self, token_ids: Sequence[int]) -> Message:
        """Sampled tokens as an assistant message. It never fails: a call that is not valid keeps ``raw_arguments``.

        The stop token is no part of the message. Thinking stays in the content, as sampled.
        """
        ...

    def spoken(self, message: Message) -> Message:
        """The assistant's ``message`` as an environment, or a client, hears it: without its thinking.

        While a turn is sampled, this and ``thinking`` only grow, but for white space and ``tags`` at their end.
        """
        ...

    def thinking(self, message: Message) -> str:
        """What the assistant thought in ``message``, without tags; empty if nothing."""
        ...

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """A ``spoken`` message with the thinking that led to it; ``message`` itself if the model never thinks."""
        ...

    def without_thinking(self) -> "Renderer":
        """The renderer of the same model with thinking off; itself if it is off, or if the model never thinks."""
        ...


class NoThinking:
    """The part of a ``Renderer`` that concerns thinking, for families whose models never think."""

    tags: tuple[str, ...] = ()
    chat_template_kwargs: Mapping[str, bool] = MappingProxyType({})

    def spoken(self, message: Message) -> Message:
        """``message`` itself."""
        return message

    def thinking(self, message: Message) -> str:
        """An empty text."""
        return ""

    def with_thinking(self, message: Message, thinking: str) -> Message:
        """``message`` itself."""
        return message

    def without_thinking(self) -> Self:
        """This renderer."""
        return self
