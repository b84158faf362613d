"""An append-only log of JSON lines: one local file, or numbered immutable shards in an object store."""

import logging
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from etils import epath
from pydantic_core import from_json

from trace_jax.contract.reading import MAX_BYTES, WRITTEN_BY_A_STAGE
from trace_jax.contract.storage import PathLike, is_local, room_for, sync_directory
from trace_jax.errors import UserError

_SHARD = re.compile(r"^(\d{8})\.jsonl$")
_PIECE = re.compile(rb"[^\n]*\n|[^\n]+")  # a line with its newline, or the rest of a block
_BLOCK = 1 << 20  # bytes that are read at a time

log = logging.getLogger(__name__)


class LineLog:
    """Appends lines of JSON to ``path``; they are durable when ``append`` returns. Lines hold no newline."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._descriptor: int | None = None
        target = epath.Path(path)
        if not is_local(path):
            target.mkdir(parents=True, exist_ok=True)
            self._next_shard = max((number for number, _ in _shards(target)), default=-1) + 1
            return
        with room_for(path, 0):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = not target.exists()
            self._descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if new:
            sync_directory(target.parent)
        else:
            _repair(self._descriptor, os.fspath(path))

    def append(self, lines: Sequence[bytes]) -> None:
        """Append all ``lines`` with one flush. If the disk refuses, none of them stays (if full, DiskFullError)."""
        if not lines:
            return
        data = b"".join(line + b"\n" for line in lines)
        with room_for(self.path, len(data)):
            if is_local(self.path):
                self._append_local(data)
                return
            (epath.Path(self.path) / f"{self._next_shard:08d}.jsonl").write_bytes(data)
            self._next_shard += 1

    def _append_local(self, data: bytes) -> None:
        if self._descriptor is None:
            raise ValueError(f"{os.fspath(self.path)}: already closed")
        before = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise

    def close(self) -> None:
        """Release the file; closing twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_lines(path: PathLike) -> Iterator[tuple[str, bytes]]:
    """``(file:line, bytes)`` for each line at ``path``; a torn last line is dropped with a warning.

    The bytes include the newline. Raises UserError for a log that is missing or cannot be read, and for a line longer
    than ``MAX_BYTES``. Callers find out themselves whether a terminated line is sound.
    """
    target = epath.Path(path)
    try:
        if not target.exists():
            raise UserError(f"{os.fspath(path)}: no such file: {WRITTEN_BY_A_STAGE}")
        for file in [shard for _, shard in _shards(target)] if target.is_dir() else [target]:
            with file.open("rb") as stream:
                yield from _whole_lines(stream, os.fspath(file))
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot be read ({error}): {WRITTEN_BY_A_STAGE}") from None


def _whole_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, bytes]]:
    number, parts, length = 1, list[bytes](), 0
    while block := stream.read(_BLOCK):
        for piece in _PIECE.findall(block):
            length += len(piece)
            if length <= MAX_BYTES:
                parts.append(piece)
            else:
                parts.clear()
            if length > MAX_BYTES and piece.endswith(b"\n"):
                raise UserError(f"{name}:{number}: a line of {length} bytes; {MAX_BYTES} can be read: shorten it")
            if piece.endswith(b"\n"):
                yield f"{name}:{number}", b"".join(parts)
                number, parts, length = number + 1, [], 0
    if not length:
        return
    if length <= MAX_BYTES and _is_object(line := b"".join(parts)):
        yield f"{name}:{number}", line
    else:  # only the last line of a file can lack its newline
        log.warning("%s:%d: dropped a torn last line of %d bytes", name, number, length)


def _is_object(line: bytes) -> bool:
    """True if ``line`` is a whole JSON object.

    A strict prefix of a JSON object is never one itself, so an unterminated line that parses lost only its newline.
    What is nested deeper than the parser goes was not written by this program, and counts as torn.
    """
    if not line.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(from_json(line.removeprefix(BOM_UTF8)), dict)
    except ValueError:
        return False


def _repair(descriptor: int, name: str) -> None:
    """End the file with a whole line: add the newline that a kill has cost, or cut a torn last line off."""
    size = os.fstat(descriptor).st_size
    start = _last_line(descriptor, size)
    length = size - start
    if not length:
        return
    if length <= MAX_BYTES and _is_object(_read(descriptor, start, size)):
        with room_for(name, 1):
            os.write(descriptor, b"\n")
    else:
        log.warning("%s: cut off a torn last line of %d bytes", name, length)
        os.ftruncate(descriptor, start)
    os.fsync(descriptor)


def _last_line(descriptor: int, size: int) -> int:
    """Where the text after the last newline begins; every byte is looked at once."""
    end = size
    while end > 0:
        start = max(end - _BLOCK, 0)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _read(descriptor: int, start: int, end: int) -> bytes:
    parts = [os.pread(descriptor, min(_BLOCK, end - offset), offset) for offset in range(start, end, _BLOCK)]
    return b"".join(parts)


def _shards(directory: epath.Path) -> list[tuple[int, epath.Path]]:
    found = ((_SHARD.match(entry.name), entry) for entry in directory.iterdir())
    return sorted((int(match.group(1)), entry) for match, entry in found if match)
