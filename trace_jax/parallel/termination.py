"""SIGTERM, the signal that a cluster sends before it takes a machine away."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Terminated(KeyboardInterrupt):
    """SIGTERM was received. A KeyboardInterrupt, because asyncio and handlers of broken episodes do not catch that."""

    status = 128 + signal.SIGTERM  # exit status of a program that it ends


class Termination:
    """A context that records SIGTERM in place of the earlier signal handler. Enter it in the main thread.

    with Termination() as termination:
        while not termination.requested:
            with termination.interruptible():
                ...
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in which SIGTERM raises Terminated at once. Outside of it SIGTERM only sets ``requested``."""
        self._interruptible = True
        try:
            if self.requested:
                raise Terminated
            yield
        finally:
            self._interruptible = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)  # None stands for a handler of JAX

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._interruptible:
            self._interruptible = False  # a second SIGTERM does not interrupt the clean-up
            raise Terminated
