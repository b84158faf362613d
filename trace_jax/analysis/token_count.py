"""How many tokens a text has: by a tokenizer, or bounded by its bytes where the model's tokenizer is not at hand."""

import math
from collections.abc import Callable
from pathlib import Path

from trace_jax.errors import UserError

Count = Callable[[str], int]

BYTES_PER_TOKEN = 2.5  # Qwen3's tokenizer: 2.4 to 4 on pages full of numbers and identifiers, 4.8 on a policy


def bounded_by_bytes(bytes_per_token: float = BYTES_PER_TOKEN) -> Count:
    """Counts one token for so many bytes of UTF-8, which is more than most tokenizers find."""

    def count(text: str) -> int:
        return math.ceil(len(text.encode(errors="replace")) / bytes_per_token)

    return count


def counted_by(tokenizer: str) -> Count:
    """Counts with the ``tokenizer.json`` in the directory ``tokenizer``. Raises UserError if it cannot be read."""
    from tokenizers import Tokenizer  # takes a moment

    path = Path(tokenizer) / "tokenizer.json"
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise UserError(f"{path}: no tokenizer ({error}): give a directory that holds one, or leave it empty") from None
    return lambda text: len(found.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)
