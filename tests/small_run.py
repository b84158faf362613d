"""A finished run in small: every kind of file of a pipeline, made by its own functions, with nothing trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from evaluation.methods import Method, evaluate_methods
from evaluation.report_data import SUMMARY, RunSummary
from evaluation.report_files import run_files, with_episodes
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import analyse
from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.capability import Candidate, Candidates, Label, LabelRun, PairLabel
from trace_jax.contract.digest import checksum, log_checksum
from trace_jax.contract.environment import Attempt, Design, EnvironmentManifest, calibration_path
from trace_jax.contract.files import JsonLinesWriter, write_document
from trace_jax.contract.trajectory import Message, Policy, Segment, Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.source import target_source
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import revision, save
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.pipeline.calibration import _group_id
from trace_jax.routing.gate import Gate, save_gate
from trace_jax.routing.table import build_table
from trace_jax.synthesis.calibration import calibrate
from trace_jax.telemetry.metrics import MetricsWriter

CONFIG = DecoderConfig(400, 16, 1, 2, 1, 8, 16)
NAMES = ("look", "finish")
DESIGN = Design(
    entry_point="trace_jax.environments.helpdesk.practice.refuse_forbidden:RefuseForbidden",
    parameters={"contrast_every": 4},
)
SETTINGS = {"seed": 0, "training": {"learning_rate": 0.1}}
FAST = Criteria(resamples=20, permutations=20, min_support=1)


class Labeller:
    """An analyst that finds ``look`` lacking wherever the reward is 0."""

    name = "labeller"

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates:
        return Candidates(analyst=self.name, capabilities=(Candidate(name="look", description="Look first."),))

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun:
        labels = tuple(
            PairLabel(
                trajectory=episode.id, capability="look", label=Label.PRESENT if episode.passed else Label.LACKING
            )
            for episode in trajectories
        )
        ids = tuple(episode.id for episode in trajectories)
        return LabelRun(run=run, seed=seed, analyst=self.name, trajectories=ids, labels=labels)


def episode(name: str, task: int, trial: int, reward: float, split: str = "train") -> Trajectory:
    """A short episode."""
    return Trajectory(
        id=name, target="helpdesk", task=str(task), split=split, seed=task, trial=trial, policy=Policy(base="b"),
        messages=(Message(role="user", content="Cancel it."), Message(role="assistant", content="Done.")),
        reward=reward, termination="done", segments=(Segment(tokens=(5, 6), trained=True, logprobs=(-0.25, -0.5)),),
    )  # fmt: skip


def base_rollouts() -> list[Trajectory]:
    """What the analysis reads."""
    return [episode(f"base/{task}/0", task, 0, float(task % 2)) for task in range(6)]


def record(path: Path, episodes: Sequence[Trajectory]) -> None:
    """Append ``episodes`` to the log at ``path``."""
    with JsonLinesWriter(path) as writer:
        writer.extend(episodes)


def make_run(root: Path) -> None:
    """Write the run to ``root``; its base is in ``root``/base."""
    open_workdir(root, SETTINGS)
    (root / "base").mkdir()
    save_tokenizer(train_tokenizer(["order customer refund"], 400), root / "base")
    save(Decoder(CONFIG, nnx.Rngs(0)), CONFIG, root / "base")
    base = revision(root / "base")
    record(root / "base_rollouts.jsonl", base_rollouts()[::-1])  # in the order of their ends
    analyse(base_rollouts(), Labeller(), root / "analysis", runs=2, criteria=FAST)
    environments = [_environment(root / "environments", name) for name in NAMES]
    adapters = [_adapter(root / "adapters", name, base, seed) for seed, name in enumerate(NAMES)]
    _route(root / "routing", base, adapters)
    _evaluate(root / "evaluation")
    manifests = [root / "adapters" / name / "adapter.json" for name in NAMES]
    files = run_files(root, "evaluation/report.json", manifests)
    assert len(files["environments"]) == len(environments)
    write_document(root / SUMMARY, RunSummary(title="a run", **files, stage_seconds={"all": 1.0}))


def _environment(directory: Path, name: str) -> EnvironmentManifest:
    played = [
        [episode(f"{_group_id(name, DESIGN, seed)}/{trial}", seed, trial, float(trial)) for trial in range(2)]
        for seed in range(2)
    ]
    path = calibration_path(directory, name)
    record(path, [episode for group in played for episode in group])
    calibration = calibrate([[episode.reward for episode in group] for group in played])
    attempt = Attempt(round=0, design=DESIGN, gates=(), calibration=calibration, seeds=(0, 1), feedback="")
    manifest = EnvironmentManifest(
        name=name, capability=name, target="helpdesk", designer="rules", design=DESIGN, gates=(),
        calibration=calibration, attempts=(attempt,), rollouts=4, recorded=log_checksum(path),
    )  # fmt: skip
    write_document(directory / f"{name}.json", manifest)
    return manifest


def _adapter(directory: Path, name: str, base: str, seed: int) -> AdapterManifest:
    fresh = init_lora(CONFIG, 2, 8.0, key=jax.random.key(seed))
    grown = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(seed), x.shape), fresh.weights)
    save_peft(LoRA(grown, fresh.scale), CONFIG, directory / name / "peft", base)
    manifest = AdapterManifest(
        name=name, capabilities=(name,), environments=(name,), base=base, rank=2, alpha=8.0,
        target_modules=tuple(fresh.targets), peft="peft", files=peft_checksums(directory / name / "peft"),
        checkpoint="checkpoints", steps=1, rollouts=8, seed=0, metrics={"reward/mean": 0.5},
    )  # fmt: skip
    write_document(directory / name / "adapter.json", manifest)
    with MetricsWriter(directory / name, tensorboard=False) as writer:
        writer.write(1, {"reward/mean": 0.5, "loss": float(seed)})
    return manifest


def gate(base: str, bias: float) -> Gate:
    """A gate that sends everything to the last adapter, for a large ``bias``."""
    zero, ones = np.zeros(16), np.ones(16)
    return Gate(base, ("", *NAMES), "mean", zero, ones, np.zeros((16, 2)), np.array([-bias, bias]))


def _route(directory: Path, base: str, adapters: Sequence[AdapterManifest]) -> None:
    path = directory / "gate.safetensors"
    directory.mkdir()
    save_gate(path, gate(base, 9.0))
    descriptions = {name: name for name in NAMES}
    digest = checksum(path).sha256
    table = build_table(base, "gate", adapters, descriptions, gate=path.name, gate_sha256=digest, rollouts=5)
    write_document(directory / "route_table.json", table)


def _evaluate(directory: Path) -> None:
    path = directory / "trajectories.jsonl"

    def run(specs) -> list[Trajectory]:
        played = [
            episode(spec.id, int(spec.task), spec.trial, float(spec.adapter == "look"), "held_out").replace(
                policy=Policy(base="b", adapter=spec.adapter)
            )
            for spec in specs
        ]
        record(path, played)
        return played

    source = replace(target_source(Helpdesk(), "helpdesk", "held_out", 1), tasks=(1, 2))
    methods = [Method(name or "base", 0.0, lambda _, name=name: name, 0) for name in (None, "look")]
    done = evaluate_methods(methods, source, 1, run, max_tokens=8, baselines=("base",))
    write_document(directory / "report.json", with_episodes(done.report, path, directory))
