"""Text to tokens and back for the renderers, such that no text can pretend to be structure."""

import re
from collections.abc import Collection, Iterable, Sequence

from tokenizers import Tokenizer

from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")


class RenderError(UserError):
    """A message cannot be written as tokens. The error is one line that names the offending part."""


def require_read_back(message: Message, heard: Message) -> None:
    """Raise RenderError unless ``heard``, what was read back of ``message``, says the same."""
    calls = tuple(call.model_copy(update={"id": f"call_{i}"}) for i, call in enumerate(message.tool_calls))
    if heard != Message(role="assistant", content=message.content or None, tool_calls=calls):
        shown = (message.content or "".join(call.name for call in calls))[:60]
        raise RenderError(
            f"message {shown!r} would not be read back equal: write it without tags, as Unicode's NFC, and its "
            "arguments as a JSON object"
        )


class Codec:
    """A tokenizer whose special tokens are written by the renderer alone: a text that holds one is spelled out.

    Args:
        tokenizer: must hold ``specials`` and decode every text that it encodes (byte-level BPE does). It is copied.
        specials: the tokens of the renderer's structure; the first ends a turn.
        end_token_ids: more tokens with which a model ends a turn, such as ``<|endoftext|>``.

    Attributes:
        id: the ids of ``specials``.
        stop_token_ids: the ids that end a turn: that of the first of ``specials``, then ``end_token_ids``.
    """

    def __init__(self, tokenizer: Tokenizer, specials: Sequence[str], end_token_ids: Collection[int] = ()) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()  # a saved tokenizer may cut long texts, or fill up short ones
        self._tokenizer.no_padding()
        ids = {token: self._tokenizer.token_to_id(token) for token in specials}
        missing = [token for token, index in ids.items() if index is None]
        if missing:
            raise RenderError(f"tokenizer lacks the special tokens {missing}: add them before training it")
        self.id: dict[str, int] = {token: index for token, index in ids.items() if index is not None}
        end = self.id[specials[0]]
        self.stop_token_ids = (end, *sorted(set(end_token_ids) - {end}))
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(self.id.values()) | {index for index in end_token_ids if index in added}

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``. Raises RenderError for half a surrogate pair, and if a special token would arise."""
        if half := _SURROGATE.search(text):
            raise RenderError(
                f"text {text[max(0, half.start() - 20) : half.end() + 20]!r} cannot be encoded: it holds half a "
                f"surrogate pair ({ascii(half[0])[1:-1]}): send whole characters"
            )
        try:
            # A batch of one: unlike ``encode``, it lets other threads run, and it finds no offsets.
            ids = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except Exception as error:  # the library raises nothing narrower: no token stands for a part of the text
            raise RenderError(f"text {text[:40]!r} cannot be encoded: {error}: use a byte-level tokenizer") from None
        if not self._special_ids.isdisjoint(ids):
            raise RenderError(
                f"text {text[:40]!r} became a special token: mark it as special in tokenizer.json, so that text cannot"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def ended(self, token_ids: Sequence[int]) -> bool:
        """True if a sampled turn ends with a stop token; False if it was cut."""
        return bool(token_ids) and token_ids[-1] in self.stop_token_ids

    def closing(self, token_ids: Sequence[int], messages: Iterable[Message]) -> tuple[int, ...] | None:
        """What closes a sampled turn before ``messages``: nothing, or the end token if the turn was cut.

        None if it ended with another stop token, which the template would not write. Raises RenderError if one of
        ``messages`` is the assistant's.
        """
        if any(message.role == "assistant" for message in messages):
            raise RenderError("a continuation holds tool, user and system messages, not the assistant's own")
        if self.ended(token_ids):
            return () if token_ids[-1] == self.stop_token_ids[0] else None
        return self.stop_token_ids[:1]

    def said(self, token_ids: Sequence[int]) -> Sequence[int]:
        """A sampled turn without the stop token, whichever it is."""
        return token_ids[:-1] if self.ended(token_ids) else token_ids
