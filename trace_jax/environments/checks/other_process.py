"""Plays episodes of a target in a process of its own.

python -m trace_jax.environments.checks.other_process < request.json > fingerprints.json
"""

import contextlib
import json
import sys
from typing import Any

from trace_jax.environments.checks.target import fingerprints
from trace_jax.environments.registry import TARGETS


def main() -> None:
    """Read one request from standard input and write the fingerprints to standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = fingerprints(TARGETS.make(request["name"], request["parameters"]), request["chosen"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
