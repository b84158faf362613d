"""What users import from the packages, and that importing a package loads nothing else."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["trace_jax.contract", "trace_jax.analysis"])
def test_every_name_of_the_face_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) > 5 and set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_the_faces_are_lazy() -> None:
    program = (
        "import sys, trace_jax.contract, trace_jax.analysis\n"
        "assert not {'pydantic', 'numpy', 'jax', 'etils'} & set(sys.modules), sorted(sys.modules)\n"
        "from trace_jax.contract import Trajectory, read_document\n"
        "assert Trajectory.__module__ == 'trace_jax.contract.trajectory' and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
