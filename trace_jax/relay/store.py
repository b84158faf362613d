"""Adapters on the relay's disk: each in a directory of its immutable name, placed whole or not at all."""

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.storage import sync_directory
from trace_jax.errors import UserError
from trace_jax.relay.check import check_adapter
from trace_jax.relay.files import CHECKSUMS, NAMES, Checksums, RelayError, check_name, checksums
from trace_jax.relay.room import Room
from trace_jax.relay.sources import Source

STALL_SECONDS = 60.0  # without a byte of an upload
DISK_BYTES = 64 << 30  # that all adapters together may take by default
_INCOMING = ".incoming"

log = logging.getLogger(__name__)


class Store:
    """The adapters in ``directory``, which belongs to one relay. What an earlier one left half received is removed.

    ``max_bytes`` bounds one adapter, ``max_disk_bytes`` all of them together.
    """

    def __init__(self, directory: Path, max_bytes: int, max_disk_bytes: int = DISK_BYTES) -> None:
        self.directory, self._max_bytes = directory.absolute(), max_bytes
        self._incoming = self.directory / _INCOMING
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{directory} is another relay's: give each relay a directory of its own") from None
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()
        self.room = Room(self.directory, max_disk_bytes)
        self._placing = threading.Lock()
        self._verified: dict[str, Checksums] = {}  # content that this process has placed, or read and found whole

    def path(self, name: str) -> Path:
        """Where an adapter lies if it is here."""
        return self.directory / check_name(name)

    def adapters(self) -> dict[str, Checksums]:
        """Every adapter by name. One whose record is damaged is left out, with a warning."""
        found = sorted(self.directory.glob(f"*/{CHECKSUMS}"))
        records = {path.parent.name: _read_record(path) for path in found}
        return {name: record for name, record in records.items() if record is not None}

    def holds(self, name: str, files: Checksums) -> bool:
        """True if just this is here, whole, under ``name``; False if the name is free, or what is here is damaged.

        Raises RelayError: 413 for more bytes than are taken, 409 for a name that has other content.
        """
        self.check_size(name, files.size)
        record = self._whole(name)
        if record is not None and record != files:
            raise RelayError(f"adapter {name!r} is here with other content: names are immutable, take a new one", 409)
        return record is not None

    def check_size(self, name: str, size: int) -> None:
        """Raise RelayError 413 for an adapter of more bytes than one may have."""
        if size > self._max_bytes:
            raise RelayError(f"adapter {name!r} has {size} bytes, limit {self._max_bytes}: see --max_gib", 413)

    def mark_used(self, name: str) -> None:
        """Make it the last adapter that has to go when there is no room."""
        os.utime(self.path(name))

    async def receive(self, name: str, files: Checksums, body: AsyncIterator[bytes]) -> None:
        """Place the content of ``body``: the files one after another, of just the announced sizes and checksums.

        Raises RelayError: 400 for anything else, 408 if it stalls, 507 if the disk is full; and as ``holds`` does.
        """
        with self._staging(name) as staging:
            rest = await _write(body, files, staging)
            if rest or await _next(body):
                raise RelayError(
                    f"adapter {name!r} came with more than the announced {files.size} bytes: send it again", 400
                )
            await asyncio.to_thread(self._place, name, files, staging)

    def fetch(self, name: str, source: Source) -> None:
        """Place the adapter in an object store. Raises as ``Source.copy``, ``receive`` and ``holds`` do."""
        self.path(name)
        with self._staging(name) as staging:
            source.copy(staging)
            files = checksums(staging)
            if files.size != source.size:
                raise RelayError(f"{source.url}: {files.size} of {source.size} bytes came: ask again", 502)
            self._place(name, files, staging)

    def remove(self, name: str) -> None:
        """Remove an adapter, whole; nothing happens if it is not here."""
        self._verified.pop(name, None)
        with self._staging(name) as staging:
            if (path := self.path(name)).exists():
                path.rename(staging / name)
                sync_directory(self.directory)

    def close(self) -> None:
        """Let another relay have the directory."""
        os.close(self._lock)

    def _place(self, name: str, files: Checksums, staging: Path) -> None:
        check_adapter(name, staging)
        write_document(staging / CHECKSUMS, files)
        for file in NAMES:
            with open(staging / file, "rb") as written:
                os.fsync(written.fileno())
        sync_directory(staging)
        with self._placing:
            if not self.holds(name, files):
                self.remove(name)  # the rest of a damaged one
                staging.rename(self.path(name))
                self._verified[name] = files
        sync_directory(self.directory)

    def _whole(self, name: str) -> Checksums | None:
        """The record of an adapter whose files are as recorded. They are read once in the life of a process."""
        if (path := self.path(name) / CHECKSUMS).exists() and (record := _read_record(path)):
            try:
                if self._verified.get(name) == record or checksums(path.parent) == record:
                    self._verified[name] = record
                    return record
            except UserError:
                pass
            log.warning("adapter %s is damaged: its files are not those of %s; it has to be sent again", name, path)
        return None

    @contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        """A directory on the same disk, gone afterwards if it was not renamed."""
        path = Path(tempfile.mkdtemp(dir=self._incoming))
        path.chmod(0o755)  # mkdtemp gives 0700; the server may be another user
        try:
            yield path
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RelayError(f"adapter {name!r}: the disk of {self.directory} is full: make room there", 507) from None
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _read_record(path: Path) -> Checksums | None:
    try:
        return read_document(path, Checksums)
    except (UserError, OSError) as error:
        log.warning("adapter %s is damaged and has to be sent again: %s", path.parent.name, error)
        return None


async def _write(body: AsyncIterator[bytes], files: Checksums, staging: Path) -> memoryview:
    """Write each file. Returns the rest of the last chunk of ``body``."""
    rest = memoryview(b"")
    for name in NAMES:
        file, digest = files.files[name], hashlib.sha256()
        missing = file.size
        with open(staging / name, "wb") as written:
            while missing:
                rest = rest or memoryview(await _next(body))
                if not rest:
                    raise RelayError(f"{name} ended {missing} bytes short of {file.size}: send it again", 400)
                part, rest = rest[:missing], rest[missing:]
                written.write(part)
                digest.update(part)
                missing -= len(part)
        if digest.hexdigest() != file.sha256:
            raise RelayError(f"{name} has checksum {digest.hexdigest()}, not {file.sha256}: send it again", 400)
    return rest


async def _next(body: AsyncIterator[bytes]) -> bytes:
    """The next chunk; empty at the end."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await anext(body, b"")
    except TimeoutError:
        raise RelayError(f"no byte for {STALL_SECONDS:g} s: send it again", 408) from None
