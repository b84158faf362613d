"""What a worker needs to know of the process that it starts: worker processes and sandboxed ones differ here alone."""

from collections.abc import Mapping
from typing import Any, Protocol

LONG = ("start", "do_nothing")  # operations that have ``start_seconds``, not ``step_seconds``


class Process(Protocol):
    """A running process that answers lines of requests.

    Attributes:
        requests: descriptor that takes requests.
        answers: descriptor that gives answers; it may be the same one.
        output: descriptor of what the process prints; None if nobody reads that.
    """

    requests: int
    answers: int
    output: int | None

    @property
    def pid(self) -> int: ...

    def read_output(self) -> bool:
        """Take what the process has printed. False once there is no more."""
        ...

    def obituary(self) -> str:
        """How the process ended, in one line."""
        ...

    def kill(self) -> None:
        """Kill the process and its children, and close the descriptors."""
        ...


class Plan(Protocol):
    """How a process is started, and what it may do.

    Attributes:
        step_seconds: of one call of an environment.
        start_seconds: until the process has loaded what it runs.
        longest_line: bytes of a line of answers.
        in_turn: the process answers its requests one after the other, so the time of a call begins when the call before
            it was answered, and a call that takes too long ends the process.
    """

    @property
    def step_seconds(self) -> float: ...

    @property
    def start_seconds(self) -> float: ...

    @property
    def longest_line(self) -> int: ...

    @property
    def in_turn(self) -> bool: ...

    def start(self) -> Process:
        """Start a process."""
        ...

    def first_line(self) -> Mapping[str, Any]:
        """What the process reads first, a JSON object."""
        ...

    def late(self, operation: str) -> str:
        """Says in one line that a call took too long; ``start`` is the loading of the process."""
        ...

    def unstartable(self, error: str) -> str:
        """Says in one line that the process could not load what it should run."""
        ...
