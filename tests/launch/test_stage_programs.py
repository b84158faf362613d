"""The programs of single stages, as a user starts them: they chain to what the pipeline does in one, file by file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xla_flags
from etils import epath
from lamps_target import LOOK_FIRST, OWN
from programs import run_program
from safetensors.numpy import load_file
from scripted_endpoint import served  # noqa: F401 (fixture)

from configs.quickstart import get_config
from trace_jax.contract.capability import Interval, SelectedCapability
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import JsonLinesWriter, read_document
from trace_jax.pipeline.method import Pipeline
from trace_jax.run_settings import read_settings

ROOT = Path(__file__).parents[2]
WEIGHTS = "peft/adapter_model.safetensors"
SMALL = {
    "training.max_steps": 2,  # both of them on what calibration has played
    "training.groups_per_step": 4,
    "training.num_generations": 4,
    "training.num_iterations": 1,
    "synthesis.calibration_groups": 8,
    "synthesis.calibration_group_size": 4,
    "synthesis.max_rounds": 3,
    "routing.prompts": 32,
    "telemetry.tensorboard": False,
}


def start(program: str, workdir: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    given = ["--config=configs/quickstart.py", f"--workdir={workdir}", *flags]
    given += [f"--config.{name}={value}" for name, value in SMALL.items()]
    # The pipeline of the test runs in its process, and bits are compared.
    return run_program(f"launch.{program}", *given, env={"XLA_FLAGS": xla_flags.TESTS})


def stage(program: str, workdir: Path, *flags: str) -> str:
    done = start(program, workdir, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_analyze_synthesize_train_and_route_leave_the_files_of_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = get_config().copy_and_resolve_references()
    config.update_from_flattened_dict(SMALL)
    pipeline = Pipeline(read_settings(config), epath.Path(tmp_path / "run"))
    found = pipeline.find_capabilities()
    made = [pipeline.make_environment(selected) for selected in found.selected]
    manifest = next(each for each in made if isinstance(each, EnvironmentManifest))
    adapter = pipeline.train_adapter(manifest.name, [manifest])
    spent = pipeline.rollouts_analysed + sum(each.rollouts for each in made)
    pipeline.train_router([manifest], [adapter], found.candidates.all, spent)
    run = tmp_path / "run"

    rollouts, analysis, synthesis = tmp_path / "rollouts.jsonl", tmp_path / "analysis", tmp_path / "synthesis"
    with JsonLinesWriter(rollouts) as writer:  # in the order in which the pipeline has analysed them
        episodes = {episode.id: episode for episode in pipeline._episodes}
        writer.extend(episodes[f"base/helpdesk/train/{task}/{trial}"] for task in range(60) for trial in range(2))
    stage("analyze", analysis, f"--config.source.path={rollouts}")
    for name in ("candidates.json", "label_runs.jsonl", "analysis_report.json", "selected.jsonl"):
        assert (analysis / name).read_bytes() == (run / "analysis" / name).read_bytes()

    given = [f"--analysis={analysis}", f"--rollouts={run / 'base_rollouts.jsonl'}"]
    assert "capabilities (" in stage("synthesize", synthesis, *given, "--dry_run") and not synthesis.exists()
    table = stage("synthesize", synthesis, *given)
    for ours, theirs in zip(
        sorted((synthesis / "environments").glob("*.json")), sorted((run / "environments").glob("*.json")), strict=True
    ):
        assert ours.name == theirs.name
        if ours.name.endswith(".failed.json"):
            assert ours.read_bytes() == theirs.read_bytes()
            assert f"| {ours.name.partition('.')[0]} | FAILED |" in table
        else:  # the log of the rollouts tells how long each took
            mine, its = (read_document(path, EnvironmentManifest).replace(recorded=None) for path in (ours, theirs))
            assert mine == its and f"| {ours.stem} | accepted |" in table
    assert stage("synthesize", synthesis, *given) == table

    trained, routed = tmp_path / "trained", tmp_path / "routed"
    stage("train", trained, f"--environments={synthesis / 'environments' / manifest.name}.json")
    ours, theirs = (load_file(each / "adapters" / manifest.name / WEIGHTS) for each in (trained, run))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():  # the program trains on all devices, the pipeline on one
        np.testing.assert_allclose(ours[name], value, atol=1e-5)

    given += [f"--environments={synthesis / 'environments'}"]
    for adapters in (trained / "adapters", run / "adapters"):
        shown = stage("route", routed, *given, f"--adapters={adapters}", "--dry_run")
        assert f"| {manifest.name} | {adapter.name} |" in shown
    stage("route", routed, *given, f"--adapters={run / 'adapters'}")
    for path in (run / "routing").iterdir():
        assert (routed / "routing" / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in (routed / "capabilities").iterdir()] == [f"{manifest.name}.json"]


SELECTED = SelectedCapability(
    capability=LOOK_FIRST, rank=1, coverage=(width := Interval(mean=0.5, low=0.4, high=0.6)), delta=width,
    failed_examples=(),
)  # fmt: skip


def dry_run(tmp_path: Path, url: str, **llm: object) -> "subprocess.CompletedProcess[str]":
    if not (tmp_path / "analysis").exists():
        with JsonLinesWriter(tmp_path / "analysis" / "selected.jsonl") as writer:
            writer.append(SELECTED)
    flags = [f"--config.llm.{name}={value}" for name, value in {"url": url, "model": "m", **llm}.items()]
    flags += ["--config.synthesis.designer=llm", "--config.synthesis.candidates=2", "--dry_run"]
    flags += [f"--config.target.environment={OWN.entry_point}", f"--analysis={tmp_path / 'analysis'}"]
    command = [sys.executable, "-m", "launch.synthesize", "--config=configs/quickstart.py", *flags]
    path = f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_a_dry_run_asks_for_the_models_alone_and_tells_what_there_can_be(served, tmp_path):  # noqa: F811
    done = dry_run(tmp_path, served.url, budget_tokens=9000)
    assert done.returncode == 0, done.stderr
    assert "1 capabilities (look_first); 0 episodes to learn from" in done.stdout
    assert "at most 8 designs, and 768 rollouts to calibrate them" in done.stdout
    assert "model 'm': offered; 0 calls on file" in done.stdout and "9000 of 9000 tokens are left" in done.stdout
    assert "| first ones accepted | 2 |" in done.stdout and "| a new module in every round | 8 |" in done.stdout
    assert "The most is more than llm.budget_tokens, 9000" in done.stdout
    assert served.bodies == []
    refused = dry_run(tmp_path, served.url, model="other")
    assert refused.returncode == 1 and "has no model 'other'" in refused.stderr and "Traceback" not in refused.stderr


def test_what_cannot_be_used_is_told_in_one_line(tmp_path):
    for program, flags, words in (
        ("synthesize", ["--analysis=nowhere"], "nowhere/selected.jsonl: no such file"),
        ("route", ["--analysis=nowhere", "--environments=none", "--adapters=none"], "no such file"),
    ):
        refused = start(program, tmp_path / "run", *flags)
        assert refused.returncode == 1 and words in refused.stderr.splitlines()[-1], refused.stderr
        assert "Traceback" not in refused.stderr and not (tmp_path / "run" / "workdir.json").exists()
