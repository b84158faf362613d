"""Plays every gate on every planted fault, and on the sound environment."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.planted_designs.faults import FAULTS
from benchmarks.planted_designs.library import Fines, target
from trace_jax.contract.trajectory import Check
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.gates import fingerprints, run_gates
from trace_jax.synthesis.isolated import same_in_two_processes

SOUND = "sound"
SEEDS = range(8)
_CHILD = """
import json, sys
from benchmarks.planted_designs.matrix import SEEDS, maker
from trace_jax.synthesis.gates import fingerprints
print(json.dumps({name: fingerprints(maker(name), SEEDS) for name in sys.argv[1:]}))
"""


def maker(name: str) -> Callable[[], Any]:
    """What makes the environments of a fault, or of the sound one."""
    return Fines if name == SOUND else FAULTS[name].make


def matrix(names: Sequence[str] = (SOUND, *FAULTS), seeds: Sequence[int] = SEEDS) -> dict[str, tuple[Check, ...]]:
    """All checks of each environment."""
    library = target()
    tasks, tools = conversations(library), library.tools
    elsewhere = _elsewhere(names)
    found = {}
    for name in names:
        make = maker(name)
        checks = run_gates(make, tools, library.results, seeds, tasks)
        found[name] = (*checks, same_in_two_processes(seeds, fingerprints(make, seeds), elsewhere[name]))
    return found


def _elsewhere(names: Sequence[str]) -> dict[str, list[str]]:
    """The fingerprints of each environment in another process, with other hashes."""
    import json

    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _CHILD, *names]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(answer.stdout)
    return found
