"""Text to tokens and back for the renderers, such that no text can pretend to be structure."""

from collections.abc import Sequence

from tokenizers import Tokenizer


class RenderError(ValueError):
    """A message cannot be written as tokens; the message is one line and names the offending part."""


class Codec:
    """A tokenizer whose special tokens come from the renderer alone: in text they are spelled out.

    Args:
        tokenizer: must hold ``specials`` and give back any text that it encodes (byte-level BPE does). It is copied.

    Attributes:
        id: the ids of ``specials``.
    """

    def __init__(self, tokenizer: Tokenizer, specials: Sequence[str]) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        ids = {token: self._tokenizer.token_to_id(token) for token in specials}
        missing = [token for token, index in ids.items() if index is None]
        if missing:
            raise RenderError(f"tokenizer lacks the special tokens {missing}: add them before training it")
        self.id: dict[str, int] = {token: index for token, index in ids.items() if index is not None}
        self._special_ids = frozenset(self.id.values())

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``. Raises RenderError for lone surrogates, and where a special token would arise."""
        try:
            # A batch of one: unlike ``encode``, it lets other threads run, and it finds no offsets.
            ids = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except (UnicodeEncodeError, TypeError) as error:  # tokenizers takes UTF-8 only; lone surrogates are not
            raise RenderError(f"text {text[:40]!r} cannot be encoded: {error}") from error
        if not self._special_ids.isdisjoint(ids):
            raise RenderError(f"text {text[:40]!r} became a special token: train the tokenizer so that it cannot")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)
