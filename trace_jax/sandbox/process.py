"""A locked process, as the workers of a pool are: its plan, its descriptors, and how it ended."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.sandbox.fork_server import ForkServer
from trace_jax.sandbox.module import SandboxedModule
from trace_jax.sandbox.server import NOT_FORKED
from trace_jax.sandbox.settings import SandboxSettings

_ENDED_SECONDS = 1.0  # in which the server tells that a process has ended, once its channel is closed
_ENDINGS = {
    signal.SIGSYS: "killed: forbidden system call, of a foreign architecture",
    signal.SIGSEGV: "crashed: SIGSEGV, which deep recursion or a broken pointer causes",
    signal.SIGKILL: "killed: SIGKILL, from outside or for want of memory",
}


@dataclass(frozen=True)
class SandboxPlan:
    """A module to be run in processes of a fork server."""

    server: Callable[[], ForkServer]
    module: SandboxedModule
    settings: SandboxSettings
    longest_line: ClassVar[int] = 5 << 20  # the longest answer, if each character takes four bytes
    in_turn: ClassVar[bool] = True

    @property
    def step_seconds(self) -> float:
        return self.settings.step_seconds

    @property
    def start_seconds(self) -> float:
        return self.settings.start_seconds

    def start(self) -> "LockedProcess":
        try:
            return LockedProcess(self.server())
        except OSError as error:
            raise EnvironmentFault(f"sandbox: no process can be started: {error}") from None

    def first_line(self) -> dict[str, Any]:
        module = self.module
        return {"source": module.source, "entry": module.entry, "parameters": dict(module.parameters)}

    def late(self, operation: str) -> str:
        name, limit = ("start", self.start_seconds) if operation == "start" else ("step", self.step_seconds)
        return f"sandbox: {operation}: no answer within {limit:g} s (sandbox.{name}_seconds)"

    def unstartable(self, error: str) -> str:
        return f"sandbox: the module cannot be loaded: {error}"


class LockedProcess:
    """A process of the fork server, with one socket for requests and answers. What it prints leads nowhere."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._number, self._channel = server.fork()
        self._channel.setblocking(False)
        self.requests = self.answers = self._channel.fileno()
        self.output: int | None = None
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """The id of its fork server: in bubblewrap the process has no id that we could see."""
        return self._server.pid

    def read_output(self) -> bool:
        return False

    def obituary(self) -> str:
        self._status = self._server.status(self._number, _ENDED_SECONDS)
        if self._status is None and not self._server.alive:
            return "sandbox: the process ended with its fork server"
        return f"sandbox: the process {_ending(self._status)}"

    def kill(self) -> None:
        self._channel.close()
        if self._status is None:
            self._server.kill(self._number)


def _ending(status: int | None) -> str:
    if status is None:
        return "closed its channel, so it was killed"
    if status == NOT_FORKED:
        return "could not be forked: this machine has no more memory or processes"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended itself with status {code}"
    name = signal.Signals(-code).name
    return _ENDINGS.get(signal.Signals(-code), f"crashed: {name}")


def check_lock(server: ForkServer, seconds: float) -> None:
    """Raises OSError, with the reason, unless a process of ``server`` can lock itself within ``seconds``."""
    number, channel = server.fork()
    with channel:
        channel.settimeout(seconds)
        try:
            channel.sendall(b'{"probe":true}\n')
            answer = channel.recv(4096)
        finally:
            server.kill(number)
    if answer != b'[[0,{"locked":true}]]\n':
        said = answer.decode(errors="backslashreplace").strip()[:300] or "it ended"
        raise OSError(f"a process could not lock itself: {said}")
