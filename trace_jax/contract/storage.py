"""Bytes on a local disk or in an object store, written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from trace_jax.errors import UserError

PathLike = str | os.PathLike[str]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no space, no quota, larger than a file may be


class DiskFullError(UserError, OSError):
    """The disk has no room for a write. The file is as it was before."""


def is_local(path: PathLike) -> bool:
    """False for object stores (``gs://…``), where a write is atomic and nothing can be appended."""
    return "://" not in os.fspath(path)


@contextmanager
def room_for(path: PathLike, size: int) -> Iterator[None]:
    """Turns "no space left" while ``size`` bytes are written to ``path`` into a DiskFullError that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"{os.fspath(path)}: the disk is full ({error.strerror}): {size} bytes are needed, {_free(path)} are free: "
            "make room and start again, or choose a directory on another disk; the file is as it was before"
        ) from error


def _free(path: PathLike) -> str:
    """Free bytes of the disk that holds ``path``, whose last directories may not exist yet."""
    directory = os.path.abspath(os.fspath(path))
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return str(shutil.disk_usage(directory).free)


def replace_bytes(path: PathLike, data: bytes) -> None:
    """Make ``data`` the content of ``path``. Killed at any moment, it holds the old content or the new.

    Raises DiskFullError when the disk is full; the old content stays.
    """
    target = epath.Path(path)
    with room_for(path, len(data)):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(path):
            target.write_bytes(data)
            return
        _replace_local(target, data)
    sync_directory(target.parent)


def _replace_local(target: epath.Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp gives 0600; others may have to read a work directory
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def sync_directory(path: PathLike) -> None:
    """Make the names in a local directory durable (a new or renamed file is lost in a power cut otherwise)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
