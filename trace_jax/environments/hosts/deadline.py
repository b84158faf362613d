"""The time limit of a synchronous call that may hang, such as an environment's step."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class DeadlineExceeded(TimeoutError):
    """The block took longer than its deadline. A TimeoutError that the block itself raises is another type."""


class _Alarm(BaseException):
    """Not an Exception, so that an environment's own ``except Exception`` cannot swallow it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise DeadlineExceeded if the block takes longer than ``seconds``, which may be infinite.

    On the main thread a hanging block is interrupted (SIGALRM). Python offers no safe way to interrupt any other
    thread, so there the error is raised when the block returns.
    """
    if seconds == math.inf:
        yield
        return
    end = time.monotonic() + seconds
    if seconds <= 0:
        raise DeadlineExceeded
    if threading.current_thread() is not threading.main_thread():
        yield
        if time.monotonic() > end:
            raise DeadlineExceeded
        return

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        raise _Alarm

    previous = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Alarm:
        raise DeadlineExceeded from None
    finally:
        signal.signal(signal.SIGALRM, previous)
