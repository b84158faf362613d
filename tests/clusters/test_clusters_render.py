"""The program: every shipped cluster renders to files that their readers accept, and holds no secret."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.clusters import render

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "configs/clusters").glob("*.py") if path.stem != "base")


def call(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.clusters", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_clusters_render_to_valid_scripts_and_yaml(cluster, name, tmp_path):
    for rendered in render(cluster(name)):
        assert rendered.files and rendered.commands
        for file, content in rendered.files.items():
            if file.endswith(".sh"):
                (tmp_path / file).write_text(content)
                subprocess.run(["bash", "-n", tmp_path / file], check=True)
            elif file.endswith(".yaml"):
                for document in yaml.safe_load_all(content):
                    run = document.get("run")
                    if run:
                        subprocess.run(["bash", "-n"], input=run, text=True, check=True)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_target_starts_every_role_and_goes_on_in_the_work_directory(cluster, name):
    made = cluster(name)
    for rendered in render(made):
        text = "\n".join(rendered.files.values())
        for module in ("launch.train", "sglang.launch_server", "sglang_router.launch_router"):
            assert f"-m {module}" in text.replace("\\\n", "").replace("-m  ", "-m "), (rendered.directory, module)
        assert f"--workdir={made.workdir}" in text


def test_it_writes_the_files_and_says_what_comes_next(tmp_path):
    result = call("--config=configs/clusters/qwen3_30b_v5p64.py", f"--out={tmp_path}", "--config.project=mine")
    assert result.returncode == 0, result.stderr
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"gke/jobset.yaml", "gke/xpk.sh", "ssh/start.sh", "ssh/server-1.sh", "ssh/trainer.sh"} <= written
    said = result.stdout.splitlines()
    assert {line.removeprefix("wrote ") for line in said if line.startswith("wrote ")} == {
        str(tmp_path / file) for file in written
    }
    assert said[0].startswith("trace-30b-v5p: 8 trainer hosts, 32 devices of v5p; 8 servers on 2 machines")
    assert "  kubectl apply -f gke/jobset.yaml" in said and any("--project=mine" in line for line in said)


def test_a_dry_run_prints_the_files_and_writes_none(tmp_path):
    result = call("--config=configs/clusters/qwen3_8b_h100.py", f"--out={tmp_path / 'out'}", "--dry_run")
    assert result.returncode == 0 and not (tmp_path / "out").exists()
    assert "# --- skypilot/task.yaml\nname: trace-8b-h100\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "--out is missing"),
        (("--out=x", "--config.trainer.topolgy=4x4"), 2, "unknown config key"),
        (("--out=x", "--workdir=gs://b/run"), 1, "the run's directory is --config.workdir"),
        (("--out=x", "--config.trainer.topology=4x4"), 1, "64 devices, but the machines have 16"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, status, words):
    result = call("--config=configs/clusters/qwen3_30b_v6e64.py", *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (status, 1), result.stderr
    assert words in result.stderr and not (ROOT / "x").exists()
