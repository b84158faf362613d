"""The public faces of three packages: every name is there, and a look at one loads no more than it needs."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["trace_jax.planning", "trace_jax.relay", "clusters"])
def test_every_name_of_the_face_is_there(package: str) -> None:
    face = import_module(package)
    assert face.__all__ and all(getattr(face, name) is not None for name in face.__all__)


def test_faces_load_no_jax_and_no_transformers() -> None:
    code = """
import sys
import clusters, trace_jax.planning, trace_jax.relay
from clusters import Cluster, read_cluster, render_gke, render_skypilot, render_ssh
from trace_jax.planning import parse_topology, prepare_environment
from trace_jax.relay import Store, deliver, make_app
print(sorted({"jax", "torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
