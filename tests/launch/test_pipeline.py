"""The whole loop in small, as a user starts it: every stage's files, equal budgets, and going on after SIGKILL."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import run_program

from evaluation.held_out import BASE_METHOD, BEST_SINGLE, GRPO, ORACLE, RANDOM, ROUTED
from evaluation.report_data import load_report_data
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.trajectory import Trajectory
from trace_jax.telemetry.metrics import read_metrics

ROOT = Path(__file__).parents[2]
SMALL = {
    "target.held_out_tasks": 6,
    "rollout.trials": 1,
    "training.max_steps": 4,  # two of them on what calibration has played
    "training.stop_reward": 0.01,  # of the adapters alone: the baseline and the mixture spend all that they are given
    "training.groups_per_step": 3,
    "training.num_generations": 4,
    "training.num_iterations": 1,
    "synthesis.calibration_groups": 6,
    "synthesis.calibration_group_size": 4,
    "synthesis.max_rounds": 2,
    "analysis.min_support": 11,  # of the four three: one is FAILED, two have adapters
    "routing.prompts": 32,
    "evaluation.trials": 1,
    "telemetry.tensorboard": False,
}


def command(workdir: Path, program: str = "launch.pipeline", **changes: object) -> list[str]:
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", program, "--config=configs/quickstart.py", f"--workdir={workdir}", *flags]


def run(workdir: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    return run_program(*command(workdir, **changes)[2:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run and what it printed."""
    workdir = tmp_path_factory.mktemp("pipeline") / "run"
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


def adapters(workdir: Path) -> dict[str, bytes]:
    """The exported weights of every adapter, snapshots included."""
    paths = sorted(workdir.rglob("adapter_model.safetensors"))
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def calibrated(workdir: Path) -> dict[str, int]:
    """How many episodes the base has played in the environments of each capability."""
    paths = workdir.glob("environments/*.rollouts.jsonl")
    return {path.name.partition(".")[0]: len(list(read_records(path, Trajectory))) for path in paths}


def test_every_stage_leaves_its_records_and_the_budgets_are_equal(finished):
    workdir, done = finished
    data = load_report_data(workdir)
    trained = {adapter.name: adapter for adapter in data.adapters}
    baseline = trained.pop("grpo_on_target")
    assert trained and len(data.environments) == len(trained) == len(data.table.routes)
    assert data.table.temperature == 1.0  # the gate is calibrated itself
    episodes = list(read_records(workdir / "base_rollouts.jsonl", Trajectory))
    assert len(episodes) == 60 and {episode.split for episode in episodes} == {"train"}

    for environment in data.environments:
        assert calibrated(workdir)[environment.capability] == environment.rollouts
        rows = read_metrics(workdir / "adapters" / environment.name)
        assert [rows[step]["rollouts"] for step in (1, 2)] == [0, 0] < [rows[3]["rollouts"]]
    failed = [read_document(path, SelectedCapability) for path in (workdir / "capabilities").glob("*.json")]
    spent = len(episodes) + sum(made.rollouts for made in (*data.environments, *trained.values(), *failed))
    rows = {(m.method, m.temperature): m for m in data.evaluation.methods}
    assert rows[ROUTED, 1.0].rollouts_spent == spent
    assert spent - 2 < rows[GRPO, 1.0].rollouts_spent == baseline.rollouts <= spent
    for method in (BASE_METHOD, GRPO, BEST_SINGLE, ROUTED, ORACLE, RANDOM):
        for temperature in (0.0, 1.0):
            assert rows[method, temperature].broken == 0
    against = {(c.method, c.baseline) for c in data.evaluation.comparisons}
    assert {(ROUTED, BASE_METHOD), (ROUTED, GRPO)} <= against

    statuses = {read_document(path, SelectedCapability).status for path in (workdir / "capabilities").glob("*.json")}
    assert Status.ROUTED in statuses <= {Status.ROUTED, Status.FAILED}
    assert len(list(read_records(workdir / "routing" / "decisions.jsonl", RouteDecision))) == 6
    page = (workdir / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert "TRACE (routed)" in done.stdout and "report.html" in done.stdout
    for stage in ("rollouts of the base", "synthesis of", "training GRPO on the target", "evaluation"):
        assert stage in done.stderr


def test_a_finished_run_is_only_reported_again(finished):
    workdir, _ = finished
    before = adapters(workdir)
    again = run(workdir)
    assert again.returncode == 0 and "TRACE (routed)" in again.stdout
    assert "training" not in again.stderr and adapters(workdir) == before


def test_another_configuration_is_refused_in_one_line(finished):
    workdir, _ = finished
    refused = run(workdir, training__learning_rate=0.5)
    assert refused.returncode == 1 and refused.stdout == ""
    assert "training.learning_rate was" in refused.stderr and "choose a new work directory" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_setting_of_a_late_stage_is_refused_before_the_work_directory_is_made(tmp_path):
    refused = run(tmp_path / "run", routing__router="oracle")
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "no router 'oracle': known are classifier, gate" in refused.stderr
    assert not (tmp_path / "run").exists()


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_version(path: Path) -> None:
    path.write_text(re.sub(r'"schema_version": \d+', '"schema_version": 9', path.read_text()))


def another_base(path: Path) -> None:
    path.write_text(read_document(path, AdapterManifest).replace(base="sha256:another").model_dump_json())


@pytest.mark.parametrize(
    "name,damage,words",
    [
        ("workdir.json", another_version, "workdir.json.*schema_version 9.*new work directory"),
        ("analysis/candidates.json", half, "candidates.json"),
        ("routing/route_table.json", another_version, "route_table.json.*schema_version 9"),
        ("adapters/*/adapter.json", another_base, "sha256:another"),
    ],
)
def test_a_damaged_or_foreign_file_is_named_and_nothing_is_lost(finished, tmp_path, name, damage, words):
    workdir, _ = finished
    copied = Path(shutil.copytree(workdir, tmp_path / "copied"))
    (copied / "run_summary.json").unlink()  # else the stages would not be asked
    path = min(copied.glob(name))
    damage(path)
    damaged = path.read_bytes()
    refused = run(copied)
    assert refused.returncode == 1 and refused.stdout == "" and "Traceback" not in refused.stderr
    assert re.search(words, refused.stderr.splitlines()[-1])
    assert path.read_bytes() == damaged and adapters(copied) == adapters(workdir)


def test_calibration_rollouts_that_an_adapter_was_trained_on_are_named_when_they_are_gone(finished, tmp_path):
    copied = Path(shutil.copytree(finished[0], tmp_path / "copied"))
    (copied / "run_summary.json").unlink()
    name = min(copied.glob("adapters/*/adapter.json")).parent.name
    kept = copied / "environments" / f"{name}.rollouts.jsonl"
    kept.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:-1]))
    assert run(copied).returncode == 0  # what is trained already needs them no more
    (copied / "run_summary.json").unlink()
    shutil.rmtree(copied / "adapters" / name)
    refused = run(copied)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    words = rf"{name}.rollouts.jsonl: holds \d+ lines, .* was made from \d+ .*restore the file"
    assert re.search(words, refused.stderr.splitlines()[-1])


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_like_an_uninterrupted_run(finished, tmp_path):
    workdir, _ = finished
    stopped = tmp_path / "stopped"
    for sign in (
        "base_rollouts.jsonl",
        "analysis/label_runs.jsonl",
        "environments/*.rollouts.jsonl",
        "environments/*.json",
        "adapters/*/metrics.jsonl",
        "routing/route_table.json",
        "baselines/*/checkpoints/*",
        "evaluation/trajectories.jsonl",
    ):
        kill_at(stopped, sign)
    done = run(stopped)
    assert done.returncode == 0, done.stderr
    assert adapters(stopped) == adapters(workdir)
    ours, theirs = load_report_data(stopped).evaluation, load_report_data(workdir).evaluation
    assert ours.tasks == theirs.tasks and [m.method for m in ours.methods] == [m.method for m in theirs.methods]
    assert [m.rewards for m in ours.methods] == [m.rewards for m in theirs.methods]
    assert len(list(read_records(stopped / "base_rollouts.jsonl", Trajectory))) == 60
    assert calibrated(stopped) == calibrated(workdir)


@pytest.mark.slow
def test_ablations_stand_beside_the_methods_of_the_run(finished, tmp_path):
    workdir, _ = finished
    root = tmp_path / "ablations"
    done = subprocess.run(
        [*command(root, "launch.ablations"), f"--run={workdir}"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    own = load_report_data(workdir).evaluation
    report = read_document(root / "evaluation" / "report.json", EvaluationReport)
    assert report.methods[: len(own.methods)] == own.methods
    added = {method.method: method.rollouts_spent for method in report.methods[len(own.methods) :]}
    assert {"one adapter on the mixture", "random capabilities (routed)"} <= set(added)
    trained = [read_document(path, AdapterManifest) for path in workdir.glob("adapters/*/adapter.json")]
    mixture = read_document(root / "adapters" / "mixture" / "adapter.json", AdapterManifest)
    assert mixture.rollouts == sum(adapter.rollouts for adapter in trained)
    rates = [name for name in added if name.startswith(f"{GRPO}, learning rate")]
    budget = next(method.rollouts_spent for method in own.methods if method.method == GRPO)
    assert len(rates) == 2 and {added[name] for name in rates} == {budget}
    assert {c.baseline for c in report.comparisons if c.method == "one adapter on the mixture"} == {BASE_METHOD, GRPO}


def kill_at(workdir: Path, sign: str) -> None:
    """Start the run and kill it with SIGKILL as soon as a file appears that was not there before it."""
    before = {path: path.stat().st_size for path in workdir.glob(sign)}
    process = subprocess.Popen(command(workdir), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while {path: path.stat().st_size for path in workdir.glob(sign)} == before:
            assert process.poll() is None and time.monotonic() < deadline, f"no new {sign}"
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
