"""An append-only log of JSON lines: one local file, or numbered immutable shards in an object store."""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence

from etils import epath

from trace_jax.contract.storage import PathLike, is_local, sync_directory
from trace_jax.errors import UserError

_SHARD = re.compile(r"^(\d{8})\.jsonl$")
_BLOCK = 1 << 16

log = logging.getLogger(__name__)


class LineLog:
    """Appends lines of JSON (without newlines inside) to ``path``; they are durable when ``append`` returns."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._descriptor: int | None = None
        target = epath.Path(path)
        if not is_local(path):
            target.mkdir(parents=True, exist_ok=True)
            self._next_shard = max((number for number, _ in _shards(target)), default=-1) + 1
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        new = not target.exists()
        self._descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if new:
            sync_directory(target.parent)
        else:
            _repair(self._descriptor, os.fspath(path))

    def append(self, lines: Sequence[bytes]) -> None:
        """Append all ``lines`` with one flush. If the disk refuses, none of them stays."""
        if not lines:
            return
        data = b"".join(line + b"\n" for line in lines)
        if not is_local(self.path):
            (epath.Path(self.path) / f"{self._next_shard:08d}.jsonl").write_bytes(data)
            self._next_shard += 1
            return
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

    Raises UserError for a missing log. Whether a terminated line is sound is for the caller to find out.
    """
    target = epath.Path(path)
    if not target.exists():
        raise UserError(missing(path))
    for file in [shard for _, shard in _shards(target)] if target.is_dir() else [target]:
        name = os.fspath(file)
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.endswith(b"\n") or _is_object(line):
                    yield f"{name}:{number}", line
                else:  # only the last line of a file can lack its newline
                    log.warning("%s:%d: dropped a torn last line of %d bytes", name, number, len(line))


def missing(path: PathLike) -> str:
    """The error message for a file that is not there."""
    return f"{os.fspath(path)}: no such file: run the stage that writes it, or correct the path"


def _is_object(line: bytes) -> bool:
    # A strict prefix of a JSON object is never one itself: an unterminated line that parses lost only its newline.
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _repair(descriptor: int, name: str) -> None:
    size = os.fstat(descriptor).st_size
    start = size
    tail = b""
    while start > 0 and b"\n" not in tail:
        length = min(_BLOCK, start)
        start -= length
        tail = os.pread(descriptor, length, start) + tail
    tail = tail[tail.rfind(b"\n") + 1 :]
    if not tail:
        return
    if _is_object(tail):
        os.write(descriptor, b"\n")
    else:
        log.warning("%s: cut off a torn last line of %d bytes", name, len(tail))
        os.ftruncate(descriptor, size - len(tail))
    os.fsync(descriptor)


def _shards(directory: epath.Path) -> list[tuple[int, epath.Path]]:
    found = ((_SHARD.match(entry.name), entry) for entry in directory.iterdir())
    return sorted((int(match.group(1)), entry) for match, entry in found if match)
