"""A small byte-pair tokenizer for agents that are taught from scratch."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
SPECIAL_TOKENS = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|call|>", END)

# Each of these is a piece: a JSON key with its punctuation, a record id, a number, a word. They keep episodes short.
# Where an atom is the key, its quote and colon go to the number: the value then follows the word that names it.
_PIECES = r""" ?["\[{,}]*"[a-z_]+":"?|":\d+|[A-Z]\d+|\d+| ?[A-Za-z_]+(?!\d)| ?[^\sA-Za-z\d]+|\s"""


def train_tokenizer(texts: Iterable[str], vocab_size: int, atoms: Sequence[str] = ()) -> Tokenizer:
    """Learn merges from ``texts``. Every byte is in the vocabulary, so any text can be encoded.

    Each word of ``atoms`` is the same piece in a sentence and as a JSON key: a small model learns to find and to copy
    a word more easily if it always looks the same.
    """
    pieces = _PIECES
    if atoms:
        words = "|".join(map(re.escape, atoms))
        alone = rf"(?<![A-Za-z_])(?:{words})(?![A-Za-z_\d])"
        pieces = pieces.replace(r'"[a-z_]+":', rf'"(?!(?:{words})")[a-z_]+":').replace(
            " ?[A-Za-z_]+", rf"{alone}| ?(?!(?:{words})(?![A-Za-z_\d]))[A-Za-z_]+"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write ``tokenizer.json``, as a Hugging Face directory holds it."""
    tokenizer.save(str(directory / "tokenizer.json"))
