"""Prompts that cannot fit are refused before they are encoded: encoding 15 MB takes many seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

from trace_jax.contract.trajectory import Message, Tool
from trace_jax.gateway.errors import ApiError

# Thinking of earlier turns may be left out of a prompt, and the tiny agents' tools are: more of these may be sent.
_UNSEEN = 16
_PART = 256  # characters that are composed at a time


@dataclass(frozen=True)
class PromptLimit:
    """The tokens that a prompt and its completion may have together, and how many characters these can be at most.

    Attributes:
        tokens: for prompt and completion together.
        characters_per_token: of the longest token of the vocabulary; infinite if nothing is known of it.
        remedy: for a client whose prompt is too long.
    """

    tokens: int
    characters_per_token: float
    remedy: str

    def check_tokens(self, prompt: int, sampled: int = 1, *, param: str) -> None:
        """Raise ApiError (400) unless there is room for ``prompt`` tokens and ``sampled`` more."""
        if prompt + sampled > self.tokens:
            raise self._refusal(
                f"prompt of {prompt} tokens and {sampled} to sample exceed the {self.tokens} that this server has "
                "room for",
                param,
            )

    def check_text(self, text: str, *, param: str) -> None:
        """Raise ApiError (400) for a text that has more tokens than there is room for, whatever they are."""
        self._check_characters(_length(text), 1, param)

    def check_chat(self, messages: Sequence[Message], tools: Sequence[Tool], thinking: Sequence[str | None]) -> None:
        """Raise ApiError (400) for a chat whose prompt has more tokens than there is room for, whatever they are.

        Messages of assistants and tools are not always rendered as they are, so more of them is let through.
        """
        shown = sum(_length(message.content or "") for message in messages if message.role != "assistant")
        self._check_characters(shown, 1, "messages")
        said = sum(
            len(message.content or "") + _written(message) for message in messages if message.role == "assistant"
        )
        said += sum(len(text or "") for text in thinking)
        self._check_characters(said, _UNSEEN, "messages")
        self._check_characters(sum(len(tool.model_dump_json(exclude={"effect"})) for tool in tools), _UNSEEN, "tools")

    def _check_characters(self, characters: int, times: int, param: str) -> None:
        most = self.tokens * self.characters_per_token * times
        if characters > most:
            raise self._refusal(
                f"{param} of {characters} characters exceeds the {self.tokens} tokens that this server has room for",
                param,
            )

    def _refusal(self, why: str, param: str) -> ApiError:
        return ApiError(400, f"{why}: {self.remedy}", param=param, code="context_length_exceeded")


def characters_per_token(tokenizer: Tokenizer) -> float:
    """How many characters one token stands for at most, counted after Unicode's composition (NFC).

    Infinite for a tokenizer that changes a text otherwise before it cuts it into tokens.
    """
    if tokenizer.normalizer is not None and not isinstance(tokenizer.normalizer, NFC):
        return math.inf
    return max(map(len, tokenizer.get_vocab()), default=math.inf)


def _length(text: str) -> int:
    """At most as many characters as ``text`` has after composition; fewer by at most 3 in 256.

    Python composes in a time that is quadratic in a run of accents, and lets no other thread run meanwhile: minutes for
    a body of nothing else. So it gets short parts. A part's end may keep one character from its, at most 3, accents.
    """
    if text.isascii():
        return len(text)
    parts = range(0, len(text), _PART)
    return sum(len(normalize("NFC", text[at : at + _PART])) for at in parts) - 3 * (len(parts) - 1)


def _written(message: Message) -> int:
    """Characters of a message's calls."""
    return sum(len(call.name) + len(call.raw_arguments or str(call.arguments)) for call in message.tool_calls)
