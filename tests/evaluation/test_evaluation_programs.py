"""The programs on a tiny model, its adapters and its gate, as they lie on disk."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from tokenizers import Tokenizer, models

from evaluation.evaluate import REPORT, TRAJECTORIES, score
from evaluation.report_data import find_documents
from evaluation.sweep import sweep
from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.digest import checksum
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, read_records, write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import revision, save
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.models.settings import BaseModelSettings
from trace_jax.rollout.settings import EvaluationSettings, RolloutSettings
from trace_jax.routing.gate import Gate, save_gate
from trace_jax.routing.table import build_table
from trace_jax.run_settings import RunSettings
from trace_jax.session import load_adapters, load_base

ROOT = Path(__file__).parents[2]


class ThreeTickets(Helpdesk):
    """The first three tickets of each split."""

    def tasks(self, split):
        return super().tasks(split)[:3]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory with a base, two adapters, and a gate that sends everything to the second."""
    root = tmp_path_factory.mktemp("run")
    config = DecoderConfig(400, 16, 1, 2, 1, 8, 16)
    save_tokenizer(train_tokenizer(["order customer refund"], 400), root)
    save(Decoder(config, nnx.Rngs(0)), config, root / "base", tokenizer_files=[root / "tokenizer.json"])
    base = revision(root / "base")
    manifests = []
    for i, name in enumerate(("look", "finish")):
        fresh = init_lora(config, 2, 8.0, key=jax.random.key(i))
        grown = jax.tree.map(lambda x, i=i: x + 0.1 * jax.random.normal(jax.random.key(i), x.shape), fresh.weights)
        save_peft(LoRA(grown, fresh.scale), config, root / "adapters" / name / "peft", base)
        manifest = AdapterManifest(
            name=name,
            capabilities=(name,),
            environments=(),
            base=base,
            rank=2,
            alpha=8.0,
            target_modules=tuple(fresh.targets),
            peft="peft",
            files=peft_checksums(root / "adapters" / name / "peft"),
            checkpoint="checkpoints",
            steps=1,
            rollouts=100 - 40 * i,
            seed=0,
        )
        write_document(root / "adapters" / name / "adapter.json", manifest)
        manifests.append(manifest)
    zero, ones = np.zeros(16), np.ones(16)
    choices, bias = ("", "look", "finish"), np.array([-9.0, 9.0])
    gate = root / "routing" / "gate.safetensors"
    save_gate(gate, Gate(base, choices, "mean", zero, ones, np.zeros((16, 2)), bias))
    digest = checksum(gate).sha256
    table = build_table(
        base, "gate", manifests, {n: n for n in choices}, gate=gate.name, gate_sha256=digest, rollouts=5
    )
    write_document(root / "routing" / "route_table.json", table)
    return epath.Path(root)


@pytest.fixture(scope="module")
def settings(run):
    return RunSettings(
        base=BaseModelSettings(path=str(run / "base")),
        target=TargetSettings(environment=f"{__name__}:ThreeTickets"),
        evaluation=EvaluationSettings(trials=2),
        rollout=RolloutSettings(max_turns=2, max_turn_tokens=4),
        engine=EngineSettings(slots=8),
    )


def manifests(run):
    return find_documents(run, AdapterManifest)


def test_base_adapters_and_routing_are_scored_and_written(run, settings, tmp_path):
    out = epath.Path(tmp_path)
    score(settings, manifests(run), run / "routing" / "route_table.json", "held_out", out)
    report = read_document(out / REPORT, EvaluationReport)
    assert [(m.method, m.temperature) for m in report.methods] == [
        (name, t) for name in ("base", "finish", "look", "routed") for t in (0.0, 1.0)
    ]
    spent = {m.method: m.rollouts_spent for m in report.methods}
    assert spent == {"base": 0, "finish": 60, "look": 100, "routed": 165}
    rewards = {(m.method, m.temperature): m.rewards for m in report.methods}
    assert rewards["routed", 1.0] == rewards["finish", 1.0]
    episodes = list(read_records(out / TRAJECTORIES, Trajectory))
    assert len(episodes) == 3 * 3 * (1 + 2) and not any(t.broken for t in episodes)
    with pytest.raises(UserError, match="exists already"):
        score(settings, manifests(run), None, "held_out", out)


def figures(out):
    """The report, less the checksum of its episodes: these tell how many seconds they took."""
    return read_document(out / REPORT, EvaluationReport).replace(episodes={})


def test_an_evaluation_goes_on_where_it_was_killed(run, settings, tmp_path):
    whole, stopped = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "stopped")
    for out in (whole, stopped):
        score(settings, manifests(run), None, "held_out", out)
    report = figures(stopped)
    assert report == figures(whole)
    lines = (stopped / TRAJECTORIES).read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:10])
    (stopped / TRAJECTORIES).write_bytes(kept + lines[10][:50])
    (stopped / REPORT).unlink()
    score(settings, manifests(run), None, "held_out", stopped)
    assert figures(stopped) == report
    again = (stopped / TRAJECTORIES).read_bytes()
    assert again.startswith(kept) and len(again.splitlines()) == len(lines)  # these ten were not played again

    (stopped / REPORT).unlink()
    episodes = (stopped / TRAJECTORIES).read_bytes()
    other = [(path, manifest.replace(peft=f"../{name}/peft", files=peft_checksums(path.parent.parent / name / "peft")))
             for (path, manifest), name in zip(manifests(run), ("look", "finish"), strict=True)]  # fmt: skip
    with pytest.raises(UserError, match="adapter_contents.finish was .*choose a new work directory"):
        score(settings, other, None, "held_out", stopped)
    with pytest.raises(UserError, match="split was 'held_out', is 'train'"):
        score(settings, manifests(run), None, "train", stopped)
    assert (stopped / TRAJECTORIES).read_bytes() == episodes


def test_sweep_finds_all_adapters_fewest_rollouts_first(run, settings, tmp_path, capsys):
    sweep(settings, run, "held_out", epath.Path(tmp_path))
    report = read_document(tmp_path / REPORT, EvaluationReport)
    assert [m.method for m in report.methods if m.temperature == 0.0] == ["base", "finish", "look"]
    assert "finish" in capsys.readouterr().out
    with pytest.raises(UserError, match="no adapter manifest"):
        sweep(settings, run / "routing", "held_out", epath.Path(tmp_path) / "new")


def test_adapters_of_another_base_and_missing_ones_are_refused(run, settings, tmp_path):
    base, (path, first) = load_base(settings), manifests(run)[0]
    with pytest.raises(UserError, match=r"finish/adapter.json: adapter of base deadbeef, the model is"):
        load_adapters([(path, first.replace(base="deadbeef"))], base)
    with pytest.raises(UserError, match="a second adapter is called 'finish'"):
        load_adapters([(path, first), (path, first)], base)
    with pytest.raises(UserError, match="routes to 'look', which is not given"):
        score(settings, [(path, first)], run / "routing" / "route_table.json", "held_out", epath.Path(tmp_path))


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
    score(fewer, manifests(run)[:1], None, "held_out", epath.Path(tmp_path))
    report = read_document(tmp_path / REPORT, EvaluationReport)
    assert len(report.tasks) == 2 and all(len(method.rewards) == 2 for method in report.methods)
    sweep(fewer, run / "adapters", "held_out", epath.Path(tmp_path / "sweep"))
    assert len(read_document(tmp_path / "sweep" / REPORT, EvaluationReport).tasks) == 2


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
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
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
