"""Waits until a URL answers 200. The trainer starts with this command, because servers need minutes to load a model.

    python -m clusters.wait --url=http://router:30000/readiness --seconds=1800

The exit status is 1 if the time runs out; the job is then started again.
"""

import argparse
import sys
import time
import urllib.error
import urllib.request

_PAUSE = 5.0  # seconds between two attempts
_TIMEOUT = 10.0  # seconds of one attempt


def wait(url: str, seconds: float, pause: float = _PAUSE) -> bool:
    """Wait until ``url`` answers 200. Returns False if it has not done so within ``seconds``."""
    end = time.monotonic() + seconds
    while not _answers(url):
        if time.monotonic() + pause > end:
            return False
        time.sleep(pause)
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):  # refused, name not resolved yet, 503 while no server is up
        return False


def main() -> int:
    """Wait as the arguments say. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Wait until a URL answers 200.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    if wait(arguments.url, arguments.seconds):
        return 0
    print(f"error: no answer from {arguments.url} for {arguments.seconds:g} s: see the servers' logs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
