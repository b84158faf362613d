"""The terms that trainer and relay share: the name of an adapter, its files with checksums, errors and the key."""

import os
import re
from pathlib import Path

from trace_jax.contract.adapter import peft_checksums
from trace_jax.contract.digest import Checksum
from trace_jax.contract.record import Record
from trace_jax.errors import UserError
from trace_jax.models.formats.peft_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS

NAMES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)  # an adapter is these two files, sent in this order
HEADER = "Adapter-Checksums"  # of an upload: the JSON of Checksums
KEY = "TRACE_RELAY_KEY"  # environment variable with the secret that relay and trainer share
API_KEY = "SGLANG_API_KEY"  # environment variable with the --api-key of SGLang servers
CHECKSUMS = "checksums.json"  # a third file, on the relay's disk

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,199}")  # one path component, never hidden; NAME@STEP


class RelayError(UserError):
    """The relay did not carry a request out. ``status`` is the HTTP status that says why."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """True if the same request would get the same response again."""
        return self.status in (401, 403, 409, 413, 422)


class Checksums(Record):
    """The two files of an adapter, by name."""

    files: dict[str, Checksum]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def check_name(name: str) -> str:
    """``name``, if it can be that of a directory and in a URL. Raises RelayError 422 otherwise."""
    if not _NAME.fullmatch(name):
        raise RelayError(f"adapter name {name[:80]!r}: use letters, digits and . _ @ + -, the first no sign", 422)
    return name


def relay_key() -> str | None:
    """The secret that relay and trainer share; None if there is none. Raises UserError for one that cannot be sent."""
    key = os.environ.get(KEY) or None  # empty is none, rather than a key that everybody has
    if key is not None and (not key.isprintable() or key != key.strip()):
        raise UserError(f"{KEY} begins or ends with a blank, or has a line break in it: write the key alone")
    return key


def checksums(directory: Path) -> Checksums:
    """Sizes and checksums of the adapter in a local PEFT directory. Raises UserError where a file is missing."""
    return Checksums(files=peft_checksums(directory))


def parse_checksums(text: str) -> Checksums:
    """The announcement of an upload. Raises UserError unless it announces an adapter's two files."""
    try:
        found = Checksums.model_validate_json(text)
    except ValueError:
        raise UserError(f"{text[:80]!r} announces no adapter: send a JSON Checksums") from None
    if tuple(sorted(found.files)) != NAMES:
        raise UserError(f"files {', '.join(sorted(found.files))[:80]!r}: an adapter is {' and '.join(NAMES)}")
    return found
