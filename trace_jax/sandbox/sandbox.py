"""The sandbox of this machine: what contains generated code here, and the fork server that runs it.

sandbox = Sandbox(SandboxSettings())
print(sandbox.describe())
"""

import threading
from collections.abc import Sequence
from functools import cache
from typing import Literal

from trace_jax.errors import UserError
from trace_jax.sandbox.fork_server import ForkServer
from trace_jax.sandbox.module import SandboxedModule
from trace_jax.sandbox.process import SandboxPlan, check_lock
from trace_jax.sandbox.settings import SandboxSettings

Mode = Literal["bubblewrap + strict", "strict", "unsandboxed"]
LOCKED: tuple[Mode, ...] = ("bubblewrap + strict", "strict")  # the better one first
_MEANS: dict[Mode, str] = {
    "bubblewrap + strict": "namespaces of their own, and a lock that leaves no files, network, processes or signals",
    "strict": "a lock that leaves no files, network, processes or signals",
    "unsandboxed": "NOTHING contains generated code: it can do all that you can (sandbox.allow_unsandboxed)",
}


class Sandbox:
    """Runs modules in locked processes: inside bubblewrap where that starts, by the lock alone elsewhere.

    ``hash_seed`` is Python's, which orders sets. An environment must not depend on it, so the gates play it with 1 and
    with 2; rollouts have 1, so that no module can tell by it where it is played. ``modes`` are tried in order. Raises
    UserError where none of them works, unless ``settings.allow_unsandboxed``.

    Attributes:
        mode: what contains generated code.
        reasons: why each better mode is not used, a line each.
    """

    def __init__(self, settings: SandboxSettings, *, hash_seed: int = 1, modes: Sequence[Mode] = LOCKED) -> None:
        self.settings = settings
        self.reasons: list[str] = []
        self._seed, self._starting, self._closed = hash_seed, threading.Lock(), False
        self.mode, self._server = self._best(modes)

    def plan(self, module: SandboxedModule) -> SandboxPlan:
        """How processes run ``module``."""
        return SandboxPlan(self._living, module, self.settings)

    def describe(self) -> str:
        """What contains generated code here: a line for people, and one for each better mode that does not work."""
        limits = f"{self.settings.memory_mib} MiB a process, {self.settings.step_seconds:g} s a call"
        return "\n".join([f"sandbox: {self.mode}: {_MEANS[self.mode]}; {limits}", *self.reasons])

    @property
    def pid(self) -> int:
        """The id of the fork server, or of bubblewrap around it."""
        return self._server.pid

    def close(self) -> None:
        """End all processes, for good."""
        self._closed = True
        self._server.close()

    def _best(self, modes: Sequence[Mode]) -> tuple[Mode, ForkServer]:
        for mode in modes:
            try:
                server = self._start(mode)
            except OSError as error:
                self.reasons.append(f"sandbox: {mode} does not work here: {error}")
                continue
            try:
                check_lock(server, self.settings.start_seconds)
                return mode, server
            except OSError as error:
                server.close()
                self.reasons.append(f"sandbox: {mode} does not work here: {error}")
        if not self.settings.allow_unsandboxed:
            raise UserError(
                f"{'; '.join(self.reasons)}: use Linux on x86-64 or aarch64, or accept with "
                "sandbox.allow_unsandboxed=true that code which a model wrote can do all that you can"
            )
        return "unsandboxed", self._start("unsandboxed")

    def _start(self, mode: Mode) -> ForkServer:
        return ForkServer(
            wrapped=mode == "bubblewrap + strict",
            locked=mode != "unsandboxed",
            memory_mib=self.settings.memory_mib,
            hash_seed=self._seed,
        )

    def _living(self) -> ForkServer:
        """The fork server, or a new one if it was ended from outside. Raises OSError."""
        with self._starting:
            if self._closed:
                raise OSError("the sandbox is closed")
            if not self._server.alive:
                self._server.close()
                self._server = self._start(self.mode)
            return self._server


@cache
def shared_sandbox(settings: SandboxSettings) -> Sandbox:
    """The one sandbox of this process with these settings. Raises UserError as ``Sandbox`` does."""
    return Sandbox(settings)
