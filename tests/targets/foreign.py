"""The Pythons of the benchmarks, and the conformance program that runs in them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python_of(name: str) -> str:
    """The interpreter that ``make targets`` installs the benchmark ``name`` for. Skips the test where there is none."""
    python = ROOT / f".venv-targets-{name}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python.parent.parent.name} is missing: run make {python.parent.parent.name}/installed")
    return str(python)


def conformance(name: str, *parts: str, hash_seed: int = 0) -> list[dict[str, Any]]:
    """What ``conformance.py`` prints for each part."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [python_of(name), str(ROOT / "tests" / "targets" / "conformance.py"), name, *parts],
        env={**environment, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]
