"""A sweep on a tiny model: the grid, what is done, what fails, and checkpoints that land while it watches."""

import csv
import io
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from etils import epath
from programs import run_program
from tiny_adapters import ThreeTickets, make_adapters, settings_of

from evaluation import scoring
from evaluation.sweep_grid import file_name, grid
from evaluation.sweep_run import PLOT, Axes, Sweep, check_failures
from evaluation.sweep_table import CSV, JSON, SweepTable
from evaluation.verification import verify
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, read_records, write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.models.formats.huggingface import read_config
from trace_jax.models.formats.peft import load_peft
from trace_jax.parallel.checkpoints import Checkpoints
from trace_jax.rollout.settings import EvaluationSettings
from trace_jax.telemetry.progress import Progress

ROOT = Path(__file__).parents[2]
FIRST = f"{ThreeTickets.__module__}:ThreeTickets"
SECOND = f"{__name__}:TwoTickets"


class TwoTickets(ThreeTickets):
    """Two more tickets."""

    def tasks(self, split):
        return tuple(range(70, 72)) if split == "held_out" else super().tasks(split)


class Torn(ThreeTickets):
    """A target that raises where it should not."""

    def environment(self, split):
        raise ZeroDivisionError("torn")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_adapters(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def settings(run):
    return settings_of(run)


def states(run):
    """A state of a training, as its checkpoints hold it: the adapter of the run that is called ``name``."""

    def state(name, step):
        lora = load_peft(run / "adapters" / name / "peft", read_config(Path(run / "base")))
        counters = {"groups": 0, "late": 0, "learnt": 0, "rollouts": 10 * step, "step": step}
        optimizer = jax.tree.map(lambda x: 0 * x, lora.weights)
        return {"weights": lora.weights, "optimizer": optimizer, "counters": counters}

    return state


def identity(run):
    manifest = read_document(run / "adapters" / "look" / "adapter.json", AdapterManifest)
    return {"base": manifest.base, "rank": 2, "alpha": 8.0}


def write_steps(run, directory, steps):
    state = states(run)
    with Checkpoints(directory / "checkpoints", identity(run), max_to_keep=9) as checkpoints:
        for step, name in steps.items():
            checkpoints.save(step, state(name, step))


def sweep_of(settings, out, targets=(FIRST,), temperatures=(0.0,), places=(), tables=()):
    axes = Axes(targets=targets, temperatures=temperatures, places=[epath.Path(p) for p in places], tables=tables)
    return Sweep(settings, axes, "held_out", epath.Path(out), Progress())


def episodes(root, row):
    """What was said in the episodes of a cell, by task and trial."""
    log = (root / "out" / row.report).parent / "trajectories.jsonl"
    return {(t.task, t.trial): t.messages for t in read_records(log, Trajectory)}


def test_the_grid_is_scored_and_written_in_three_forms(run, settings, tmp_path):
    training = tmp_path / "look"
    write_steps(run, training, {2: "finish", 4: "look"})
    table = run / "routing" / "route_table.json"
    sweep = sweep_of(settings, tmp_path / "out", (FIRST, SECOND), (1.0,), [training, run / "adapters"], [table])
    assert sweep.once() == len(sweep.rows) == 2 * 8
    check_failures(sweep.rows)
    methods = ["base", "finish", "look", "look@2", "look@4", "routed", "routed with look@2", "routed with look@4"]
    assert sorted({row.method for row in sweep.rows}) == methods
    rows = {(row.target, row.method, row.temperature): row for row in sweep.rows}
    for target in (FIRST, SECOND):
        said = {method: episodes(tmp_path, rows[target, method, 1.0]) for method in methods}
        assert said["look@4"] == said["look"] != said["base"] != said["finish"] != said["look"]
        assert said["look@2"] == said["routed"] == said["routed with look@2"] == said["finish"]
    spent = {method: rows[FIRST, method, 1.0].rollouts_spent for method in ("look@4", "routed", "routed with look@2")}
    assert spent == {"look@4": 40, "routed": 165, "routed with look@2": 60 + 20 + 5}
    assert rows[FIRST, "base", 1.0].difference is None and rows[FIRST, "look", 1.0].difference.mean is not None
    assert {row.do_nothing for row in sweep.rows} == {0.0}
    assert not any(row.flagged for row in sweep.rows) and rows[FIRST, "look", 1.0].episodes == 6
    assert rows[FIRST, "look", 1.0].replace(broken=1).flagged

    written = read_document(tmp_path / "out" / JSON, SweepTable)
    assert written.rows == sweep.rows
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / CSV).read_text())))
    assert [(line["method"], float(line["pass_rate"])) for line in lines] == [
        (row.method, row.pass_rate.mean) for row in sweep.rows
    ]
    assert (tmp_path / "out" / PLOT).read_text().startswith("<svg")
    for row in sweep.rows:
        report = read_document(tmp_path / "out" / row.report, EvaluationReport)
        assert report.methods[0].pass_rate == row.pass_rate and report.do_nothing.pass_rate.mean == 0.0
    logs = list((tmp_path / "out").rglob("do_nothing.jsonl"))
    assert sorted(len(list(read_records(log, Trajectory))) for log in logs) == [2, 3]  # once for each target
    assert {finding.problem for finding in verify(epath.Path(tmp_path / "out"), lambda *_: None)} == {None}


def test_what_is_done_is_not_played_again_and_the_axes_may_grow(run, settings, tmp_path, monkeypatch):
    one, two = run / "adapters" / "look", run / "adapters" / "finish"
    sweep_of(settings, tmp_path, places=[one]).once()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.scoring.play", lambda *arguments, **named: pytest.fail("played again"))
        again = sweep_of(settings, tmp_path, places=[one])
        again.once()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    played, play = [], scoring.play
    monkeypatch.setattr(scoring, "play", lambda *a, **named: played.append(named["label"]) or play(*a, **named))
    more = sweep_of(settings, tmp_path, (FIRST, SECOND), places=[one, two])
    more.once()
    assert played == [
        f"{method} on {target} at T=0"
        for method, target in (("base", SECOND), ("finish", FIRST), ("finish", SECOND), ("look", SECOND))
    ]
    with pytest.raises(UserError, match="evaluation.trials was 2, is 3"):
        sweep_of(replace(settings, evaluation=EvaluationSettings(trials=3)), tmp_path, places=[one])


def test_a_cell_that_fails_costs_no_other_and_is_tried_again(run, settings, tmp_path):
    shutil.copytree(run / "adapters", tmp_path / "adapters")
    weights = tmp_path / "adapters" / "look" / "peft" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    (tmp_path / "adapters" / "torn").mkdir()
    (tmp_path / "adapters" / "torn" / "adapter.json").write_text("{")
    targets = (FIRST, "nowhere", f"{__name__}:Torn")
    sweep = sweep_of(settings, tmp_path / "out", targets, places=[tmp_path / "adapters"])
    sweep.once()
    found = {(row.target, row.method): row for row in sweep.rows}
    assert {key for key, row in found.items() if row.status == "done"} == {(FIRST, "base"), (FIRST, "finish")}
    assert "adapter_model.safetensors" in found[FIRST, "look"].reason
    assert "not a valid AdapterManifest" in found[FIRST, "torn"].reason
    assert "no target 'nowhere'" in found["nowhere", "base"].reason
    assert "ZeroDivisionError: torn" in found[f"{__name__}:Torn", "base"].reason
    with pytest.raises(UserError, match=r"10 of 12 cells failed, the first \(.* tries them again"):
        check_failures(sweep.rows)
    weights.write_bytes(whole)
    again = sweep_of(settings, tmp_path / "out", targets, places=[tmp_path / "adapters" / "look"])
    again.once()
    found = {(row.target, row.method): row.status for row in again.rows}
    assert found[FIRST, "look"] == found[FIRST, "finish"] == "done" and found["nowhere", "look"] == "failed"


def test_a_checkpoint_that_changed_under_its_name_is_refused_alone(run, settings, tmp_path):
    write_steps(run, tmp_path / "a", {2: "look"})
    sweep_of(settings, tmp_path / "out", places=[tmp_path / "a"]).once()
    shutil.rmtree(tmp_path / "a")
    write_steps(run, tmp_path / "a", {2: "finish", 3: "look"})
    sweep = sweep_of(settings, tmp_path / "out", places=[tmp_path / "a"])
    sweep.once()
    rows = {row.method: row for row in sweep.rows}
    assert rows["a@2"].status == "failed" and "methods.a@2 was" in rows["a@2"].reason and rows["a@3"].status == "done"


def test_a_watched_training_is_scored_as_it_goes_until_its_end(run, settings, tmp_path):
    """The training begins late, writes a step in two parts, removes an old step, and ends with its manifest."""
    training, sweep = tmp_path / "a", sweep_of(settings, tmp_path / "out", places=[tmp_path / "a"])
    write_steps(run, tmp_path / "made", {1: "look", 2: "finish", 3: "look"})
    seen = []

    def until(methods):
        while not methods <= {row.method for row in sweep.rows if row.status == "done"}:
            time.sleep(0.02)
        seen.append({row.method for row in sweep.rows})

    def train():
        until({"base"})
        land = training / "checkpoints"
        land.mkdir(parents=True)
        shutil.copytree(tmp_path / "made" / "checkpoints" / "1", land / "1.orbax-checkpoint-tmp")
        time.sleep(0.3)
        seen.append({row.method for row in sweep.rows})
        os.rename(land / "1.orbax-checkpoint-tmp", land / "1")
        until({"a@1"})
        shutil.copytree(tmp_path / "made" / "checkpoints" / "2", land / "2.orbax-checkpoint-tmp")
        os.rename(land / "2.orbax-checkpoint-tmp", land / "2")
        until({"a@2"})
        shutil.rmtree(land / "1")
        shutil.copytree(run / "adapters" / "look" / "peft", training / "peft")
        manifest = read_document(run / "adapters" / "look" / "adapter.json", AdapterManifest)
        write_document(training / "adapter.json", manifest.replace(name="look", steps=3))

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    sweep.watch(0.05)
    thread.join(10)
    assert seen == [{"base"}, {"base"}, {"base", "a@1"}, {"base", "a@1", "a@2"}]
    assert [(row.method, row.series, row.step, row.status) for row in sweep.rows] == [
        ("base", "base", None, "done"), ("a@1", "a", 1, "done"), ("a@2", "a", 2, "done"), ("look", "a", 3, "done")
    ]  # fmt: skip


def test_a_checkpoint_that_is_removed_before_its_turn_is_gone_not_failed(run, settings, tmp_path, monkeypatch):
    write_steps(run, tmp_path / "a", {1: "look"})
    monkeypatch.setattr("evaluation.scoring.play", lambda *a, **k: shutil.rmtree(tmp_path / "a") or 1 / 0)
    sweep = sweep_of(settings, tmp_path / "out", places=[tmp_path / "a"])
    sweep.once()
    rows = {row.method: row for row in sweep.rows}
    assert rows["base"].status == "failed"
    assert rows["a@1"].status == "gone" and "its training removed it before it was scored" in rows["a@1"].reason


def test_two_trainings_of_one_name_are_refused(run, settings, tmp_path):
    for place in ("x/a", "y/a"):
        write_steps(run, tmp_path / place, {1: "look"})
    sweep = sweep_of(settings, tmp_path / "out", places=[tmp_path / "x", tmp_path / "y"])
    with pytest.raises(UserError, match=r"two checkpoints are called 'a@1': .*x/a.* and .*y/a.*: rename the directory"):
        sweep.once()


def test_names_of_directories_are_plain_and_distinct():
    names = ["helpdesk", "tests.x:Y", "a/b", "a b", "..", "a_b", "routed with a@2"]
    found = [file_name(name) for name in names]
    assert found[0] == "helpdesk" and len(set(found)) == len(names)
    assert not any(set("/: ") & set(name) or name.startswith("..") and len(name) == 2 for name in found)
    assert [cell.directory for cell in grid(["d"], [0.0, 0.7], [], [])] == ["d/base/t0", "d/base/t0.7"]


def test_the_program_ends_with_status_1_if_a_cell_failed_and_keeps_the_rest(run, tmp_path):
    command = [
        "evaluation.sweep", "--config=configs/base.py", f"--config.base.path={run / 'base'}",
        "--config.rollout.max_turns=2", "--config.rollout.max_turn_tokens=4", "--config.target.held_out_tasks=2",
        "--config.evaluation.trials=1", f"--workdir={tmp_path / 'out'}", "--targets=helpdesk,nowhere",
        "--temperatures=0", f"--checkpoints={run / 'adapters' / 'look'}",
    ]  # fmt: skip
    done = run_program(*command)
    assert done.returncode == 1 and "error: 2 of 4 cells failed, the first (base on nowhere at T=0)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "look" in done.stdout and str(tmp_path / "out" / "sweep.svg") in done.stdout
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
    assert [(row["method"], row["status"]) for row in rows] == [
        ("base", "done"), ("base", "failed"), ("look", "done"), ("look", "failed")
    ]  # fmt: skip
    bad = run_program(*command, "--temperatures=0,hot")
    assert bad.returncode == 1 and "error: --temperatures=0,hot: give numbers" in bad.stderr
