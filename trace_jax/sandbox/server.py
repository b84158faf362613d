"""The fork server: loads what generated code may import, and forks a process for each module. It runs none itself.

    python -P -s -S -B -X utf8 server.py ROOT CONTROL LOCKED MEMORY PATH...

ROOT is the directory of the package ``trace_jax``, CONTROL the descriptor of a socket to our side, LOCKED 1 or 0,
MEMORY the MiB of a process, and each PATH holds packages. A record of CONTROL is a letter and two numbers. We say
``f N 0`` with a descriptor (fork process N, which talks over it) and ``k N 0`` (kill it). The server says ``r 0 0``
(ready) and ``e N STATUS`` (process N has ended, with the status of waitpid, or could not be forked). The end of CONTROL
ends the server and all processes.
"""

import contextlib
import gc
import importlib
import importlib.util
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
from typing import Any

RECORD = struct.Struct("=cIi")
NOT_FORKED = -1  # in place of a status


class Server:
    """The processes that were forked, by number and by id."""

    def __init__(self, control: socket.socket, locked: bool, memory_mib: int) -> None:
        self._control, self._locked, self._memory = control, locked, memory_mib
        self._numbers: dict[int, int] = {}  # of processes by id
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Fork, kill and report until our side closes the control socket."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._tell(b"r", 0, 0)
        watched: list[Any] = [self._control, self._woken]
        while True:
            ready = select.select(watched, [], [])[0]
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control in ready and not self._obey():
                return

    def _obey(self) -> bool:
        record, descriptors, _, _ = socket.recv_fds(self._control, RECORD.size, 1)
        if len(record) < RECORD.size:
            return False
        letter, number, _ = RECORD.unpack(record)
        if letter == b"f":
            self._fork(number, descriptors[0])
        else:
            for pid, known in self._numbers.items():
                if known == number:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, number: int, channel: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(channel)
            self._tell(b"e", number, NOT_FORKED)
            return
        if pid == 0:
            self._become(channel, server)
        os.close(channel)
        self._numbers[pid] = number

    def _become(self, channel: int, server: int) -> None:
        """The forked process: it keeps the channel as descriptor 3, and three that lead nowhere. Never returns."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.detach()
        for descriptor in (1, 2):
            os.dup2(0, descriptor)
        os.dup2(channel, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        from trace_jax.sandbox.child import run

        try:
            run(3, self._memory if self._locked else None, server)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._tell(b"e", self._numbers.pop(pid, 0), status)

    def _tell(self, letter: bytes, number: int, status: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # our side has ended; so will the control socket
            self._control.sendall(RECORD.pack(letter, number, status))


def preload(root: str, paths: "list[str]") -> None:
    """Import everything that generated code can import."""
    sys.path[:0] = paths
    spec = importlib.util.spec_from_file_location("worker", os.path.join(root, "environments", "hosts", "worker.py"))
    assert spec is not None and spec.loader is not None
    worker: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.find_ours(root)
    sys.path.remove("")
    from trace_jax.sandbox import child, preloaded

    for name in (*preloaded.STANDARD, *preloaded.OURS):
        importlib.import_module(name)
    for package in preloaded.LAZY:
        for part in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if part.name not in preloaded.NEVER:
                importlib.import_module(part.name)
    child.warm_up()
    gc.collect()
    gc.freeze()  # or the collector would write to every page, and no forked process could share it


def main() -> None:
    """Preload and serve."""
    root, given, locked, memory, *paths = sys.argv[1:]
    control = os.dup(int(given))  # the lowest free number: ours may be too large for select
    os.close(int(given))
    preload(root, paths)
    sys.argv[1:] = []
    Server(socket.socket(fileno=control), locked == "1", int(memory)).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
