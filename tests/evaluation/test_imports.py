"""The programs answer --help without the slow packages."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", ["evaluate", "sweep", "aggregate", "report"])
def test_a_program_loads_no_slow_package_before_it_needs_it(program):
    code = (
        f"import sys, evaluation.{program}\n"
        "slow = {'jax', 'matplotlib', 'scipy', 'orbax', 'flax', 'aiohttp', 'transformers'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
