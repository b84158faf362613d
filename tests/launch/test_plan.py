"""``python -m launch.plan`` as a user's shell sees it, with a small program in the place of a trainer's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

from trace_jax.contract.files import read_document
from trace_jax.planning.report import PlanReport

ROOT = Path(__file__).parents[2]
STAND_IN = ("--config=configs/base.py", "--programs=yardstick:stand_in")


def paths() -> str:
    return f"{ROOT}:{ROOT / 'tests' / 'planning'}:{os.environ['PYTHONPATH']}"


def plan(*arguments: str) -> subprocess.CompletedProcess:
    """Started anew: it prepares the environment before it imports JAX."""
    environment = {**os.environ, "PYTHONPATH": paths()}
    command = [sys.executable, "-m", "launch.plan", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_plan_that_fits(tmp_path):
    pytest.importorskip("libtpu")
    file = tmp_path / "plan.json"
    result = plan(*STAND_IN, "--topology=v5e-4", f"--json={file}")
    assert result.returncode == 0, result.stderr
    report = read_document(file, PlanReport)
    assert (report.topology, report.chips, report.mesh["fsdp"]) == ("v5e:2x2", 4, 4)
    assert report.fits and report.tokens_per_step == 4 * 4096
    for shown in (
        report.programs[0].memory.verdict,
        "all-gather",
        "yardstick.py",
        f"{report.step.tokens_per_second:,.0f} tokens/s",
        f"MFU at most {100 * report.step.mfu:.1f} %",
        f"bound by {report.step.bottleneck}",
        "upper bounds",
    ):
        assert shown in result.stdout, result.stdout


def test_a_plan_that_does_not_fit():
    pytest.importorskip("libtpu")
    result = plan(*STAND_IN, "--topology=v5e:2x2", "--config.seed=1024")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: v5e:2x2: mlp does not fit: "), result.stderr
    assert "the largest buffers are" in lines[0] and "yardstick.py" in lines[0]
    assert "does not fit" in result.stdout


@pytest.mark.parametrize(
    "arguments, told",
    [
        (STAND_IN, "--topology is missing"),
        ((*STAND_IN, "--topology=v5p:4x4"), "v5p has 3 axes"),
        (("--config=configs/base.py", "--topology=v5e:2x2"), "neither plan.model nor base.path is set"),
        (("--config=configs/base.py", "--topology=v5e:2x2", "--programs=yardstick:absent"), "yardstick:absent"),
    ],
)
def test_refused_in_one_line(arguments, told):
    result = run_program("launch.plan", *arguments, env={"PYTHONPATH": paths()})
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and told in result.stderr, result.stderr


def test_a_missing_compiler_names_the_command():
    try:
        import jax_cuda12_plugin  # noqa: F401
    except ImportError:
        result = plan(*STAND_IN, "--topology=h100:8")
        assert result.returncode == 1
        assert 'pip install "jax[cuda12-local]"' in result.stderr
    else:
        result = plan(*STAND_IN, "--topology=h100:8")
        assert result.returncode == 0, result.stderr
        assert "h100:8: 8 chips" in result.stdout and "tokens/s" in result.stdout
