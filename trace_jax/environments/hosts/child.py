"""The process of a worker: its start, its three pipes, and how it ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import trace_jax
from trace_jax.environments.hosts.plan import LONG
from trace_jax.errors import UserError

_CHUNK, _KEPT = 1 << 16, 4096  # bytes: of a read, and of what is kept of the output
_WORKER = Path(__file__).with_name("worker.py")
_ROOT = Path(trace_jax.__file__).parent


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker runs: a target or environment by path, its parameters, the interpreter, and its time limits."""

    path: str
    parameters: Mapping[str, Any]
    python: str | None = None  # None: this interpreter, with its sys.path
    step_seconds: float = 60.0
    start_seconds: float = 300.0
    longest_line: ClassVar[int] = 72 << 20
    in_turn: ClassVar[bool] = False  # a blocked episode has a thread of its own

    def start(self) -> "Child":
        return Child(self)

    def first_line(self) -> dict[str, Any]:
        return {"path": self.path, "parameters": dict(self.parameters)}

    def late(self, operation: str) -> str:
        name, limit = ("start", self.start_seconds) if operation in LONG else ("step", self.step_seconds)
        return f"{operation} took longer than target.{name}_seconds={limit:g}"

    def unstartable(self, error: str) -> str:
        return f"a worker cannot start: {error}"


class Child:
    """A process that runs ``worker.py``. Raises UserError if the interpreter cannot be started.

    Attributes:
        requests: descriptor that the process reads requests from.
        answers: descriptor of its answers.
        output: descriptor of what it prints, standard error included.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self._process, self.requests, self.answers = _start(plan)
        assert self._process.stdout is not None
        self._printing = self._process.stdout.fileno()
        self.output: int | None = self._printing
        for descriptor in (self.requests, self.answers, self._printing):
            os.set_blocking(descriptor, False)
        self._printed = b""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def read_output(self) -> bool:
        """Take what the process has printed, so that it never waits for a reader. False once there is no more."""
        try:
            while data := os.read(self._printing, _CHUNK):
                self._printed = (self._printed + data)[-_KEPT:]
        except BlockingIOError:
            return True
        return False

    def obituary(self) -> str:
        """How the process ended, and the last line that it printed."""
        try:
            status = self._process.wait(timeout=1)
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        except subprocess.TimeoutExpired:
            how = "closed the pipe of its answers"
        self.read_output()
        lines = self._printed.decode(errors="backslashreplace").strip().splitlines()
        last = f"; its last line was {lines[-1].strip()[-300:]!r}" if lines else ""
        return f"the worker {how}{last}"

    def kill(self) -> None:
        """Kill the process and its children, and close the pipes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        os.close(self.requests)
        os.close(self.answers)


def _start(plan: WorkerPlan) -> tuple["subprocess.Popen[bytes]", int, int]:
    """The process, and the descriptors of requests and answers."""
    python, environment = plan.python or sys.executable, {**os.environ, "PYTHONUNBUFFERED": "1"}
    if plan.python is None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    read_requests, requests = os.pipe()
    answers, write_answers = os.pipe()
    try:
        process = subprocess.Popen(
            [python, str(_WORKER), str(_ROOT), str(read_requests), str(write_answers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(read_requests, write_answers),
            env=environment,
            start_new_session=True,  # an interruption of this program is not the worker's
        )
    except OSError as error:
        os.close(requests)
        os.close(answers)
        raise UserError(
            f"target.python is {python!r}: {error.strerror}: give the path of a Python interpreter"
        ) from None
    finally:
        os.close(read_requests)
        os.close(write_answers)
    return process, requests, answers
