"""Adapters on the relay's disk: each in a directory of its immutable name, placed whole or not at all."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.storage import sync_directory
from trace_jax.errors import UserError
from trace_jax.relay.check import check_adapter
from trace_jax.relay.files import CHECKSUMS, NAMES, Checksums, RelayError, check_name, checksums

STALL_SECONDS = 60.0  # without a byte of an upload
_INCOMING = ".incoming"


class Store:
    """The adapters in ``directory``, which belongs to one relay. What an earlier one left half received is removed."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
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

    def path(self, name: str) -> Path:
        """Where an adapter lies if it is here."""
        return self.directory / check_name(name)

    def held(self) -> dict[str, Checksums]:
        """Every adapter by name."""
        found = sorted(self.directory.glob(f"*/{CHECKSUMS}"))
        return {path.parent.name: read_document(path, Checksums) for path in found}

    def holds(self, name: str, files: Checksums) -> bool:
        """True if just this is here under ``name``, False if the name is free.

        Raises RelayError: 413 for more bytes than are taken, 409 for a name that has other content.
        """
        path = self.path(name) / CHECKSUMS
        if files.size > self._max_bytes:
            raise RelayError(f"adapter {name!r} has {files.size} bytes, limit {self._max_bytes}: see --max_gib", 413)
        if not path.exists():
            return False
        if read_document(path, Checksums) != files:
            raise RelayError(f"adapter {name!r} is here with other content: names are immutable, take a new one", 409)
        return True

    async def receive(self, name: str, files: Checksums, body: AsyncIterator[bytes]) -> None:
        """Place what ``body`` holds: the files one after another, of just the announced sizes and checksums.

        Raises RelayError: 400 for anything else, 408 if it stalls; and as ``holds`` does.
        """
        with self._staging() as staging:
            rest = await _write(body, files, staging)
            if rest or await _next(body):
                raise RelayError(
                    f"adapter {name!r} came with more than the announced {files.size} bytes: send it again", 400
                )
            await asyncio.to_thread(self._place, name, files, staging)

    def fetch(self, name: str, url: str) -> None:
        """Place the adapter in an fsspec directory.

        Raises UserError if it is not there, RelayError 502 if the object store fails, and as ``holds`` does.
        """
        self.path(name)
        with self._staging() as staging:
            try:
                system, root = fsspec.core.url_to_fs(url)
                size = sum(int(system.info(f"{root}/{file}")["size"]) for file in NAMES)
                if fits := size <= self._max_bytes:
                    for file in NAMES:
                        system.get_file(f"{root}/{file}", str(staging / file))
            except (FileNotFoundError, ImportError, ValueError) as error:
                raise UserError(
                    f"{url}: cannot be fetched ({error!r}): correct the path, or install its fsspec driver"
                ) from None
            except Exception as error:  # drivers have their own, for no answer or no credentials
                raise RelayError(
                    f"{url}: cannot be fetched ({error!r}): see if the relay reaches the store and may read it", 502
                ) from None
            if not fits:
                raise RelayError(f"{url} has {size} bytes, limit {self._max_bytes}: see --max_gib", 413)
            files = checksums(staging)
            if files.size != size:
                raise RelayError(f"{url}: {files.size} of {size} bytes came: ask again", 502)
            self._place(name, files, staging)

    def remove(self, name: str) -> None:
        """Remove an adapter, whole; nothing happens if it is not here."""
        with self._staging() as staging:
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
        try:
            staging.rename(self.path(name))
        except OSError:  # somebody was faster, or the disk refuses
            if not self.holds(name, files):
                raise
        sync_directory(self.directory)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A directory on the same disk, gone afterwards if it was not renamed."""
        path = Path(tempfile.mkdtemp(dir=self._incoming))
        path.chmod(0o755)  # mkdtemp gives 0700; the server may be another user
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


async def _write(body: AsyncIterator[bytes], files: Checksums, staging: Path) -> memoryview:
    """Write each file; what is left of the last piece of ``body``."""
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
    """The next piece; empty at the end."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await anext(body, b"")
    except TimeoutError:
        raise RelayError(f"no byte for {STALL_SECONDS:g} s: send it again", 408) from None
