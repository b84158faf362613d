"""A time limit on a synchronous call that may hang."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Overrun(TimeoutError):
    """The body took too long; told apart from a TimeoutError of the body's own."""


class _Expired(BaseException):
    """Not an Exception, so that an environment's own ``except Exception`` cannot swallow it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Overrun if the body takes longer than ``seconds``.

    On the main thread a hanging body is interrupted (SIGALRM). On any other thread Python offers no safe way to
    interrupt it, so the error is raised when the body returns.
    """
    end = time.monotonic() + seconds
    if seconds <= 0:
        raise Overrun
    if threading.current_thread() is not threading.main_thread():
        yield
        if time.monotonic() > end:
            raise Overrun
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Expired:
        raise Overrun from None
    finally:
        signal.signal(signal.SIGALRM, previous)
