"""Trains a small real model: ``python -m launch.smollm2 --config=configs/smollm2.py --workdir=DIR``.

The program converts SmolLM2-135M-Instruct (once), warms it up on demonstrations of the target's practice tickets, and
trains it by GRPO with LoRA on the target's training tickets. It plays held-out tickets before and after the training,
greedily and sampled. It writes DIR/report.html and the files behind it. After an interruption the same command
continues.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import held_out_source
from evaluation.play import always, play, temperatures
from evaluation.report import write_report
from evaluation.report_data import SUMMARY, RunSummary, load_report_data
from evaluation.report_files import run_files
from evaluation.terminal import print_evaluation, print_learning
from launch.convert_smollm2 import make_model
from launch.warm_start import WarmStartSettings
from trace_jax.chat.files import chat_files
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.helpdesk.short import ShortDesk, ShortHelpdesk
from trace_jax.environments.source import target_source
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import save
from trace_jax.pipeline.jobs import target_job
from trace_jax.pipeline.stage_times import StageTimes
from trace_jax.program import run
from trace_jax.run_settings import read_section, read_settings, sections
from trace_jax.session import Base, load_adapters, load_base, open_session
from trace_jax.telemetry.progress import Progress
from trace_jax.training.demonstrations import tokenized, turns_of
from trace_jax.training.settings import check_sampling
from trace_jax.training.supervised import Demonstration, SupervisedConfig, train_supervised
from trace_jax.training.trainer import train

WARM, GRPO = "warm start", "GRPO"
REPORT = "evaluation.json"


def demonstrations(settings: WarmStartSettings, seed: int, renderer: Renderer) -> list[Demonstration]:
    """Correct solutions of practice tickets, ``passes`` times, in a new order each time. The seed picks the tickets."""
    desk, shown = ShortDesk("practice"), []
    count = settings.demonstrations
    for ticket in range(seed * count, (seed + 1) * count):
        opening = desk.reset(ticket).messages
        shown.append(tokenized(opening, desk.tools, turns_of(desk, desk.solution()), renderer))
    rng = np.random.default_rng(seed)
    return [shown[i] for _ in range(settings.passes) for i in rng.permutation(count)]


class Run:
    """The stages of one seed. Each stage continues from its files."""

    def __init__(self, config: ConfigDict, workdir: epath.Path) -> None:
        settings, warm = read_settings(config), read_section(config, WarmStartSettings)
        check_sampling(settings.rollout)
        model = Path(settings.base.path)
        if not (model / "config.json").exists():
            make_model(model)
        untaught = load_base(settings)
        identity = {**settings.identity(), "warm_start": asdict(warm), "base_revision": untaught.revision}
        self.root = Path(open_workdir(workdir, identity))
        self.times, self.progress, self.target = (
            StageTimes(self.root / "stage_times.jsonl"),
            Progress(),
            ShortHelpdesk(),
        )
        directory = self.root / "warm"
        if not (directory / "config.json").exists():
            with self.times.stage(WARM), self.progress:
                taught = self._teach(warm, settings.seed, untaught)
                save(taught, untaught.config, directory, chat_files(model))
        self.settings = replace(settings, base=replace(settings.base, path=str(directory)))
        self.base = load_base(self.settings)

    def _teach(self, warm: WarmStartSettings, seed: int, untaught: Base) -> Decoder:
        """The base after its warm start: all its weights are trained on demonstrations."""
        steps = -(-warm.demonstrations * warm.passes // warm.rows)
        supervised = SupervisedConfig(
            learning_rate=warm.learning_rate, rows=warm.rows, weight_decay=0.0, context_weight=0.0
        )
        with self.progress.stage(WARM, steps) as bar:

            def tick(step: int, loss: float) -> None:
                bar.advance()
                if step in (1, steps):
                    self.progress.print(f"{WARM}, step {step}: loss {loss:.3f} nats a token")

            shown = demonstrations(warm, seed, untaught.renderer)
            return train_supervised(untaught.decoder, shown, supervised, tick)

    def train(self) -> AdapterManifest:
        """GRPO on the training tickets."""
        settings, base, directory = self.settings, self.base, self.root / "adapter"
        tasks = target_source(self.target, self.target.name, "train", settings.target.train_tasks).tasks
        if (directory / MANIFEST).exists():
            return read_document(directory / MANIFEST, AdapterManifest)
        with self.times.stage(GRPO), self.progress.stage(GRPO, settings.training.most_steps) as bar:
            (manifest,) = train(
                [target_job(self.target, self.target.name, tasks, "grpo", directory)],
                decoder=base.decoder,
                engine=open_session(settings, base).engine,
                renderer=base.renderer,
                training=settings.training,
                rollout=settings.rollout,
                seed=settings.seed,
                base=base.revision,
                telemetry=settings.telemetry,
                progress=lambda report: bar.advance(reward=report.metrics["reward/mean"], tokens=report.tokens),
            )
        return manifest

    def evaluate(self, adapter: AdapterManifest | None = None) -> EvaluationReport:
        """The warm start and, if there is one, the adapter on the held-out tickets."""
        settings, path = self.settings, epath.Path(self.root / "adapter" / MANIFEST)
        methods = temperatures(settings, WARM, always(None), 0)
        loras = {} if adapter is None else load_adapters([(path, adapter)], self.base)
        if adapter is not None:
            methods += temperatures(settings, GRPO, always(adapter.name), adapter.rollouts)
        label = "evaluation before" if adapter is None else "evaluation after"
        with self.times.stage(label):
            played = play(
                settings,
                self.base,
                held_out_source(settings, self.target),
                loras,
                methods,
                trials=settings.evaluation.trials,
                progress=self.progress,
                label=label,
                path=self.root / "trajectories.jsonl",
                baselines=(WARM,),
            )
        return played.report


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Run all stages that are not done yet."""
    if not (workdir / SUMMARY).exists():
        stages = Run(config, workdir)
        with stages.progress:
            print_evaluation(stages.evaluate())
            report = stages.evaluate(stages.train())
        write_document(stages.root / REPORT, report)
        title = f"SmolLM2-135M-Instruct on {report.target}, seed {config.seed}"
        summary = RunSummary(
            title=title,
            **run_files(stages.root, REPORT, [stages.root / "adapter" / MANIFEST]),
            stage_seconds=stages.times.seconds(),
        )
        write_document(stages.root / SUMMARY, summary)
    data = load_report_data(workdir)
    write_report(data, workdir / "report.html")
    for metrics in data.metrics.values():
        print_learning(metrics)
    print_evaluation(data.evaluation)
    print(f"{sum(data.stage_seconds.values()):.0f} s in all; see {workdir / 'report.html'}")


if __name__ == "__main__":
    run(main, settings=(*sections(), WarmStartSettings))
