"""One program at a time in a work directory.

with locked(workdir):
    ...
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from trace_jax.contract.storage import PathLike, is_local
from trace_jax.errors import UserError

FILE = ".lock"
_LONGEST_COMMAND = 300  # characters of the owner's command that are shown
_SECONDS_TO_SIGN = 1.0  # in which the owner of a lock has written who it is
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(directory: PathLike) -> Iterator[None]:
    """Hold the lock of ``directory``, which is made if it is missing, while the block runs.

    The system releases the lock when the process ends, however it ends. A directory that was made for the lock, and in
    which nothing was written, is removed again. Object stores and some file systems have no locks: a warning says so.

    Raises UserError, naming who holds it and since when, if another program works in the directory.
    """
    if not is_local(directory):
        _warn(directory, "an object store has no locks")
        yield
        return
    place = Path(directory)
    new = not place.exists()
    descriptor = _acquire(place)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked child
            _release(descriptor, place, new)


def _acquire(place: Path) -> int:
    """The open descriptor of the lock file in ``place``, locked and signed."""
    path = place / FILE
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # the directory has just been removed
                continue
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if isinstance(error, BlockingIOError) and _is_at(descriptor, path):
                    who = _owner(descriptor)
                    raise UserError(
                        f"{place}: {who} works there: wait until it has ended, end it, or choose another directory"
                    ) from None
                if error.errno in _NO_LOCKS:
                    _warn(place, f"its file system has no locks ({error})")
                elif not isinstance(error, BlockingIOError):
                    raise
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _signature(), 0)
                stack.pop_all()
                return descriptor


def _release(descriptor: int, place: Path, remove: bool) -> None:
    (place / FILE).unlink(missing_ok=True)  # still locked: a process that opened it sees this and retries
    if remove:
        with contextlib.suppress(OSError):  # as a rule it is not empty
            place.rmdir()
    _held.remove(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """False if the file that was opened is no longer the one at ``path``: its owner has ended since."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _signature() -> bytes:
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": textwrap.shorten(shlex.join(sys.orig_argv), _LONGEST_COMMAND, placeholder=" …"),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    return json.dumps(owner).encode()


def _owner(descriptor: int) -> str:
    """Who holds the lock, in words. It may have got the lock this moment, and not have signed it yet."""
    end = time.monotonic() + _SECONDS_TO_SIGN
    while time.monotonic() < end:
        try:
            owner = json.loads(os.pread(descriptor, 1 << 20, 0))
            return f"process {owner['pid']} on {owner['host']} (since {owner['since']}: {owner['command']})"
        except (ValueError, KeyError, TypeError):
            time.sleep(0.02)
    return "another process, which has not said its name,"


def _warn(directory: PathLike, why: str) -> None:
    log.warning("%s: %s: make sure that no other program writes there", os.fspath(directory), why)


def _forget() -> None:
    """Close the locks of the parent in a forked child, which would keep them after the parent's end."""
    while _held:
        os.close(_held.pop())


_held: set[int] = set()
os.register_at_fork(after_in_child=_forget)
