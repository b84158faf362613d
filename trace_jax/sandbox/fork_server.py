"""Our side of the fork server: starts it, asks it for processes, and hears how they ended."""

import importlib.util
import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trace_jax
from trace_jax.sandbox import bubblewrap
from trace_jax.sandbox.preloaded import PACKAGES
from trace_jax.sandbox.server import RECORD

_ROOT = str(Path(trace_jax.__file__).parent)
_READY_SECONDS = 60.0  # to load the modules, on a busy machine
_GONE = "the fork server has ended"


class ForkServer:
    """A running fork server. It ends with this object, or with this process. Raises OSError if it does not start.

    Attributes:
        pid: of the process; of bubblewrap, where it runs in that.
    """

    def __init__(self, *, wrapped: bool, locked: bool, memory_mib: int, hash_seed: int) -> None:
        self._control, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()
        self._asking = threading.Lock()
        self._numbers = itertools.count(1)
        self._statuses: dict[int, int] = {}
        with theirs:
            process = subprocess.Popen(
                _command(theirs.fileno(), wrapped=wrapped, locked=locked, memory_mib=memory_mib),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(),),
                env=_environment(hash_seed),
                cwd="/",
                start_new_session=True,  # an interruption of this program is not the server's
            )
        self.pid, self._process = process.pid, process
        self._finalizer = weakref.finalize(self, _end, process, self._control)
        if self._hear(time.monotonic() + _READY_SECONDS) != b"r":
            self.close()
            raise OSError(self._why())

    def fork(self) -> tuple[int, socket.socket]:
        """The number of a new process, and the socket to it. Raises OSError if the server has ended."""
        ours, theirs = socket.socketpair()
        with self._asking, theirs:
            number = next(self._numbers)
            try:
                socket.send_fds(self._control, [RECORD.pack(b"f", number, 0)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise OSError(_GONE) from None
        return number, ours

    def kill(self, number: int) -> None:
        """Kill a process whose status is not known yet, and wait for its end."""
        with self._asking, suppress(OSError):  # the server has ended, and its processes with it
            self._control.sendall(RECORD.pack(b"k", number, 0))
        self.status(number, 5.0)

    def status(self, number: int, seconds: float) -> int | None:
        """The status of waitpid for a process; None if it has not ended after ``seconds``, or the server has."""
        end = time.monotonic() + seconds
        with self._asking:
            while number not in self._statuses and self._hear(end) is not None:
                pass
            return self._statuses.pop(number, None)

    @property
    def alive(self) -> bool:
        """Whether it can fork still."""
        return self._finalizer.alive and self._process.poll() is None

    def close(self) -> None:
        """End the server and all of its processes."""
        self._finalizer()

    def _hear(self, end: float) -> bytes | None:
        """The letter of the server's next record, which is taken note of; None if there is none until ``end``."""
        record = b""
        while len(record) < RECORD.size:
            try:
                if not readable(self._control, end - time.monotonic()):
                    return None
                data = self._control.recv(RECORD.size - len(record))
            except (OSError, ValueError):  # closed here
                return None
            if not data:
                return None
            record += data
        letter, number, status = RECORD.unpack(record)
        if letter == b"e":
            self._statuses[number] = status
        found: bytes = letter
        return found

    def _why(self) -> str:
        """The last line that the server or bubblewrap wrote."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="backslashreplace").strip().splitlines()
        return lines[-1] if lines else f"it ended, or was not ready after {_READY_SECONDS:g} s"


def readable(channel: socket.socket, seconds: float) -> bool:
    """Whether there is something to read within ``seconds``, or the other side has closed."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(max(seconds, 0.0) * 1000))


def _end(process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
    control.close()  # which ends the server
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(control: int, *, wrapped: bool, locked: bool, memory_mib: int) -> list[str]:
    python, server = os.path.realpath(sys.executable), str(Path(_ROOT, "sandbox", "server.py"))
    paths = _package_paths()
    outside = bubblewrap.command([_ROOT, *paths]) if wrapped else []
    options = ["-P", "-s", "-S", "-B", "-X", "utf8"]
    return [*outside, python, *options, server, _ROOT, str(control), str(int(locked)), str(memory_mib), *paths]


def _environment(hash_seed: int) -> dict[str, str]:
    """Nothing of ours but where a shared interpreter finds its library."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": str(hash_seed), **kept}


def _package_paths() -> Sequence[str]:
    """The directories of the packages that environments need."""
    found = [importlib.util.find_spec(name) for name in PACKAGES]
    origins = [Path(spec.origin) for spec in found if spec is not None and spec.origin is not None]
    return [*dict.fromkeys(str(at.parent.parent if at.name == "__init__.py" else at.parent) for at in origins)]
