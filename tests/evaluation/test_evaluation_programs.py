"""The programs on a tiny model, its adapters and its gate, as they lie on disk."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from etils import epath
from programs import run_program
from tiny_adapters import make_adapters, settings_of
from tokenizers import Tokenizer, models

from evaluation.checkpoints import find_checkpoints
from evaluation.evaluate import subjects_of
from evaluation.models import Models
from evaluation.scoring import REPORT, TRAJECTORIES, score, source_of
from evaluation.sweep_run import Axes, Sweep
from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, read_records, write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.settings import EngineSettings
from trace_jax.errors import UserError
from trace_jax.models.settings import BaseModelSettings
from trace_jax.rollout.settings import EvaluationSettings
from trace_jax.session import load_adapters, load_base
from trace_jax.telemetry.progress import Progress

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_adapters(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def settings(run):
    return settings_of(run)


def evaluate(settings, out, adapters=(), merges=(), tables=(), split="held_out"):
    """As the program does."""
    subjects = subjects_of([str(path) for path in adapters], merges, [str(path) for path in tables])
    source = source_of(settings, split)
    return score(Models(settings), source, subjects, [0.0, 1.0], epath.Path(out), progress=Progress())


def test_base_adapters_merges_and_routing_are_scored_and_written(run, settings, tmp_path):
    table, merges = run / "routing" / "route_table.json", ("look+finish", "0.5*look+0.5*look")
    given = evaluate(settings, tmp_path, [run / "adapters"], merges, [table])
    report = read_document(tmp_path / REPORT, EvaluationReport)
    assert report == given
    assert [(m.method, m.temperature) for m in report.methods] == [
        (name, t) for name in ("base", "finish", "look", *merges, "routed") for t in (0.0, 1.0)
    ]
    spent = {m.method: m.rollouts_spent for m in report.methods}
    assert spent == {"base": 0, "finish": 60, "look": 100, merges[0]: 160, merges[1]: 200, "routed": 165}
    rewards = {(m.method, m.temperature): m.rewards for m in report.methods}
    assert rewards["routed", 1.0] == rewards["finish", 1.0]
    assert rewards["0.5*look+0.5*look", 0.0] == rewards["look", 0.0]
    episodes = list(read_records(tmp_path / TRAJECTORIES, Trajectory))
    assert len(episodes) == 3 * 5 * (1 + 2) and not any(t.broken for t in episodes)
    for method in report.methods:
        trials = 1 if method.temperature == 0.0 else 2
        assert method.effort.episodes == sum(method.errors.terminations.values()) == 3 * trials
        assert set(method.pass_hat_k) == set(method.pass_at_k) == set("12"[:trials])
    nothing = list(read_records(tmp_path / "do_nothing.jsonl", Trajectory))
    assert [t.task for t in nothing] == list(report.tasks) and not any(t.broken for t in nothing)
    assert all(m.content == "" and not m.tool_calls for t in nothing for m in t.messages if m.role == "assistant")
    assert report.do_nothing.rewards == {t.task: (t.reward,) for t in nothing}


def test_the_same_command_gives_the_same_report_without_a_model(run, settings, tmp_path, monkeypatch):
    first = evaluate(settings, tmp_path, [run / "adapters"])
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("trace_jax.session.load_base", lambda *arguments: pytest.fail("the model was loaded"))
    monkeypatch.setattr("evaluation.scoring.play", lambda *arguments, **named: pytest.fail("played again"))
    assert evaluate(settings, tmp_path, [run / "adapters"]) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written
    slower = replace(settings, engine=EngineSettings(slots=3))
    assert evaluate(slower, tmp_path, [run / "adapters"]) == first
    for other, words in [
        (replace(settings, evaluation=EvaluationSettings(trials=3)), "evaluation.trials was 2, is 3"),
        (replace(settings, target=replace(settings.target, held_out_tasks=2)), "target.held_out_tasks was 80, is 2"),
        (replace(settings, seed=4), "seed was 0, is 4"),
        (replace(settings, rollout=replace(settings.rollout, max_turns=3)), "rollout.max_turns was 2, is 3"),
    ]:
        with pytest.raises(UserError, match=words):
            evaluate(other, tmp_path, [run / "adapters"])
    with pytest.raises(UserError, match=r"methods\.look was '\w+', is absent"):
        evaluate(settings, tmp_path, [run / "adapters" / "finish"])
    episodes = (tmp_path / TRAJECTORIES).read_text()
    (tmp_path / TRAJECTORIES).write_text(episodes.replace("order", "0rder"))
    with pytest.raises(UserError, match="episodes were changed after the report"):
        evaluate(settings, tmp_path, [run / "adapters"])


def figures(out):
    """The report without the seconds that its episodes took."""
    report = read_document(out / REPORT, EvaluationReport)
    still = {"seconds": 0.0, "seconds_median": 0.0, "seconds_p95": 0.0}

    def timeless(method):
        return method.replace(effort=method.effort.replace(**still))

    methods = tuple(map(timeless, report.methods))
    return report.replace(episodes={}, methods=methods, do_nothing=timeless(report.do_nothing))


def test_an_evaluation_goes_on_where_it_was_killed(run, settings, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for out in (whole, stopped):
        evaluate(settings, out, [run / "adapters"])
    report = figures(stopped)
    assert report == figures(whole)
    lines = (stopped / TRAJECTORIES).read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:10])
    (stopped / TRAJECTORIES).write_bytes(kept + lines[10][:50])
    (stopped / REPORT).unlink()
    (stopped / "do_nothing.jsonl").unlink()
    evaluate(settings, stopped, [run / "adapters"])
    assert figures(stopped) == report
    again = (stopped / TRAJECTORIES).read_bytes()
    assert again.startswith(kept) and len(again.splitlines()) == len(lines)  # these ten were not played again

    (stopped / REPORT).unlink()
    episodes = (stopped / TRAJECTORIES).read_bytes()
    for name, other in (("look", "finish"), ("finish", "look")):  # under each other's name
        manifest = read_document(run / "adapters" / name / "adapter.json", AdapterManifest)
        files = peft_checksums(run / "adapters" / other / "peft")
        swapped = manifest.replace(peft=str(run / "adapters" / other / "peft"), files=files)
        write_document(tmp_path / "swapped" / name / "adapter.json", swapped)
    with pytest.raises(UserError, match="methods.finish was .*choose a new work directory"):
        evaluate(settings, stopped, [tmp_path / "swapped"])
    with pytest.raises(UserError, match="split was 'held_out', is 'train'"):
        evaluate(settings, stopped, [run / "adapters"], split="train")
    assert (stopped / TRAJECTORIES).read_bytes() == episodes


def test_adapters_of_another_base_and_missing_ones_are_refused(run, settings, tmp_path):
    base, path = load_base(settings), run / "adapters" / "finish" / "adapter.json"
    first = read_document(path, AdapterManifest)
    with pytest.raises(UserError, match=r"finish/adapter.json: adapter of base deadbeef, the model is"):
        load_adapters([(path, first.replace(base="deadbeef"))], base)
    with pytest.raises(UserError, match="a second adapter is called 'finish'"):
        load_adapters([(path, first), (path, first)], base)
    shutil.copytree(run / "routing", tmp_path / "routing")
    with pytest.raises(UserError, match="routes to 'look', which is not given"):
        evaluate(settings, tmp_path / "out", [path], tables=[tmp_path / "routing" / "route_table.json"])
    for text, words in [("look+a", "no adapter 'look' is given: known are finish"), ("x*finish", "is no part"),
                        ("nan*finish", "is no part"), ("finish+", "is no part")]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            evaluate(settings, tmp_path / "out", [path], [text])
    with pytest.raises(UserError, match="two methods are called 'finish'"):
        evaluate(settings, tmp_path / "out", [path, path])
    with pytest.raises(UserError, match="holds no adapter.json, Orbax step or PEFT directory"):
        evaluate(settings, tmp_path / "out", [run / "routing"])
    assert not (tmp_path / "out").exists()


def test_a_peft_directory_without_a_manifest_is_an_adapter_too(run, settings, tmp_path):
    shutil.copytree(run / "adapters" / "look" / "peft", tmp_path / "foreign" / "peft")
    (found,) = find_checkpoints(epath.Path(tmp_path / "foreign"))
    assert (found.name, found.kind, found.step) == ("foreign", "peft", None)
    report = evaluate(settings, tmp_path / "out", [tmp_path / "foreign", run / "adapters" / "look"])
    foreign, own = (next(m for m in report.methods if m.method == name) for name in ("foreign", "look"))
    assert foreign.rewards == own.rewards and foreign.rollouts_spent == 0


def test_a_base_that_cannot_be_used_is_named_with_its_file(run, settings, tmp_path):
    shutil.copytree(run / "base", tmp_path / "base")
    changed = replace(settings, base=BaseModelSettings(path=str(tmp_path / "base")))
    path = tmp_path / "base" / "tokenizer.json"
    for text, words in [
        (path.read_text()[:-50], "is not JSON (.*): download"),
        ("{}", "is damaged (.*): put"),
        (Tokenizer(models.BPE()).to_str(), "tokenizer lacks the special tokens"),
        (None, "is missing: put"),
    ]:
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UserError, match=f"^{path.parent}(/{path.name})?:? {words}") as found:
            load_base(changed)
        assert "\n" not in str(found.value)


def test_only_so_many_held_out_tasks_are_scored_as_the_settings_say(run, settings, tmp_path):
    fewer = replace(settings, target=replace(settings.target, held_out_tasks=2))
    report = evaluate(fewer, tmp_path, [run / "adapters" / "finish"])
    assert len(report.tasks) == 2 and all(len(method.rewards) == 2 for method in report.methods)
    sweep = Sweep(fewer, Axes(targets=[fewer.target.environment], temperatures=[0.0], places=[], tables=[]), "held_out",
                  epath.Path(tmp_path / "sweep"), Progress())  # fmt: skip
    sweep.once()
    (path,) = (tmp_path / "sweep").rglob(REPORT)
    assert len(read_document(path, EvaluationReport).tasks) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["evaluation.evaluate", "--config=configs/base.py", "--workdir=x"], 1, "error: config.base.path is empty"),
        (["evaluation.report"], 2, "error: --workdir is missing"),
        (["evaluation.report", "--workdir=nowhere"], 1, "error: nowhere/run_summary.json: no such file"),
        (["evaluation.aggregate", "--reports="], 1, "error: the reports have different targets or splits"),
    ],
)
def test_programs_fail_in_one_line(arguments, status, message):
    done = run_program(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_program_without_configuration_is_interrupted_like_the_others():
    main = "lambda: print('ready', flush=True) or time.sleep(60)"
    program = f"import time; from evaluation.program import run; run({main})"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.count("\n") == 1 and errors.startswith("interrupted")
