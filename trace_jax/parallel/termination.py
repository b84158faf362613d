"""SIGTERM: what a cluster sends before it takes a machine away."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. A KeyboardInterrupt, since asyncio and whoever catches broken episodes let only that pass."""

    status = 128 + signal.SIGTERM  # of a program that it ends


class Termination:
    """Notes SIGTERM while it is entered, in the main thread, in place of what the signal did before.

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
        """A block that SIGTERM ends at once, with Terminated; elsewhere it is only noted."""
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
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)  # None: JAX's own

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._interruptible:
            self._interruptible = False  # once: what cleans up is not interrupted again
            raise Terminated
