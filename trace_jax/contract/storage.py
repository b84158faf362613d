"""Bytes on a local disk or in an object store, written whole or not at all."""

import os
import tempfile

from etils import epath

PathLike = str | os.PathLike[str]


def is_local(path: PathLike) -> bool:
    """False for object stores (``gs://…``), where a write is atomic and nothing can be appended."""
    return "://" not in os.fspath(path)


def replace_bytes(path: PathLike, data: bytes) -> None:
    """Make ``data`` the content of ``path``. Killed at any moment, it holds the old content or the new."""
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
        target.write_bytes(data)
        return
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
    sync_directory(target.parent)


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
