"""A server that ends in time after SIGTERM, whatever is still in flight."""

import logging
import os
import sys
import threading
from types import FrameType

import uvicorn

logger = logging.getLogger(__name__)

_FAREWELL_SECONDS = 0.5


class DrainingServer(uvicorn.Server):
    """Lets responses end for ``seconds`` after the first SIGTERM or SIGINT, and then ends the process.

    uvicorn stops waiting for responses one second before that, cancels them and closes what is open. A thread that is
    still at work, such as a long pass of the router, cannot be cancelled: the process then ends without it.
    """

    def __init__(self, config: uvicorn.Config, seconds: int) -> None:
        config.timeout_graceful_shutdown = max(seconds - 1, 0)
        super().__init__(config)
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal. It is the last thing of a process: the timer is never cancelled."""
        if not self.should_exit:
            timer = threading.Timer(self._seconds, self._end)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    def _end(self) -> None:
        farewell = threading.Thread(target=self._say_farewell, daemon=True)
        farewell.start()
        farewell.join(_FAREWELL_SECONDS)
        os._exit(0)

    def _say_farewell(self) -> None:
        """Blocks for as long as nobody reads the log."""
        logger.warning("work goes on after the %d s that the signal left: ending without it", self._seconds)
        sys.stdout.flush()
        sys.stderr.flush()
