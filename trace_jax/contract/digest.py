"""SHA-256 digests with which a document vouches for the files that it names or was made from.

A flipped bit, a swapped file or an edited line is refused in one line that names the file, both digests and a remedy.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

from etils import epath
from pydantic import Field, StringConstraints

from trace_jax.contract.lines import read_lines
from trace_jax.contract.record import Part
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_BLOCK = 1 << 20


class Checksum(Part):
    """One file: its size in bytes and the SHA-256 of its content in hex."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class LogChecksum(Part):
    """The first ``lines`` lines of a JSON Lines log. A log that grows keeps its checksum."""

    lines: Annotated[int, Field(ge=0)]
    sha256: Sha256  # of these lines, each with its newline


class FileReference(Part):
    """A file, relative to the document that names it, and the SHA-256 of its content."""

    path: str
    sha256: Sha256


def checksum(path: PathLike) -> Checksum:
    """Size and SHA-256 of the file at ``path``. Raises UserError if there is none."""
    digest, size = hashlib.sha256(), 0
    try:
        with epath.Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        raise UserError(f"{os.fspath(path)}: no such file: run the stage that writes it, or restore it") from None
    return Checksum(size=size, sha256=digest.hexdigest())


def check_file(path: PathLike, expected: str, named_by: PathLike, remedy: str) -> None:
    """Raise UserError unless the file at ``path`` has the SHA-256 that ``named_by`` records for it."""
    found = checksum(path).sha256
    if found != expected:
        raise UserError(differs(path, expected, found, os.fspath(named_by), remedy))


def refer(path: PathLike, directory: PathLike) -> FileReference:
    """A reference to the file at ``path``, from a document in ``directory`` above it."""
    relative = os.path.relpath(os.fspath(path), os.fspath(directory))
    return FileReference(path=relative, sha256=checksum(path).sha256)


def log_checksum(path: PathLike, lines: int | None = None) -> LogChecksum:
    """The checksum of the first ``lines`` lines of the log at ``path``, or of those that there are, if these are fewer.

    A torn last line is no line. Raises UserError for a missing log.
    """
    digest, count = hashlib.sha256(), 0
    for _, line in islice(read_lines(path), lines):
        digest.update(line.removesuffix(b"\n") + b"\n")
        count += 1
    return LogChecksum(lines=count, sha256=digest.hexdigest())


def check_log(path: PathLike, expected: LogChecksum, named_by: PathLike, remedy: str) -> None:
    """Raise UserError unless the log at ``path`` still begins with the lines that ``named_by`` was made from."""
    found = log_checksum(path, expected.lines)
    if found.lines < expected.lines:
        raise UserError(
            f"{os.fspath(path)}: holds {found.lines} lines, {os.fspath(named_by)} was made from {expected.lines} "
            f"(sha256 {expected.sha256}, found {found.sha256}): {remedy}"
        )
    if found.sha256 != expected.sha256:
        first = f"its first {expected.lines} lines, of which {os.fspath(named_by)} was made"
        raise UserError(differs(path, expected.sha256, found.sha256, first, remedy))


def digest_of(value: Mapping[str, Any]) -> str:
    """The SHA-256 of ``value`` as JSON with sorted keys: equal for equal values, a tuple being equal to a list.

    What JSON cannot hold counts by its ``repr``: writing it to a file is refused elsewhere.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def differs(path: PathLike, expected: str, found: str, by: str, remedy: str) -> str:
    """The message for a file with another digest than the one that is written down for it."""
    return f"{os.fspath(path)}: sha256 is {found}, expected {expected} (by {by}): {remedy}"
