"""A real model learns: ``python -m launch.smollm2 --config=configs/smollm2.py --workdir=DIR``.

SmolLM2-135M-Instruct is converted (once), shown some demonstrations of the target's practice tickets, and trained by
GRPO with LoRA on the target's training tickets; held-out tickets are played before and after, greedily and sampled.
Writes DIR/report.html and the files behind it. Interrupted, the same command goes on.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evaluation.play import always, play, temperatures
from evaluation.report import write_report
from evaluation.report_data import SUMMARY, RunSummary, load_report_data
from evaluation.terminal import print_evaluation, print_learning
from launch.convert_smollm2 import make_model
from launch.stages import Clock, open_run
from trace_jax import pipeline
from trace_jax.base_agent import Agent
from trace_jax.chat.files import chat_files
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import write_document
from trace_jax.environments.helpdesk.short import ShortDesk, ShortHelpdesk
from trace_jax.models.formats.huggingface import save
from trace_jax.program import run
from trace_jax.session import Base, limits, load_adapters, load_base, make_engine
from trace_jax.telemetry.progress import Progress
from trace_jax.training.config import GRPOConfig
from trace_jax.training.demonstrations import tokenized, turns_of
from trace_jax.training.job import StepReport
from trace_jax.training.run import MANIFEST
from trace_jax.training.supervised import Demonstration, SupervisedConfig, train_supervised

WARM, GRPO = "warm start", "GRPO"
REPORT = "evaluation.json"


def demonstrations(config: ConfigDict, renderer: Renderer) -> list[Demonstration]:
    """Practice tickets done right, ``passes`` times over, shuffled anew each time; other tickets for every seed."""
    desk, shown = ShortDesk("practice"), []
    count = config.warm_start.demonstrations
    for seed in range(config.seed * count, (config.seed + 1) * count):
        opening = desk.reset(seed).messages
        shown.append(tokenized(opening, desk.tools, turns_of(desk, desk.solution()), renderer))
    rng = np.random.default_rng(config.seed)
    return [shown[i] for _ in range(config.warm_start.passes) for i in rng.permutation(count)]


def warm_start(config: ConfigDict, base: Base, directory: Path, tick: Callable[[int, float], None]) -> None:
    """Teach all weights of ``base`` by demonstrations, and write the model into ``directory``."""
    settings = SupervisedConfig(
        learning_rate=config.warm_start.learning_rate,
        rows=config.warm_start.rows,
        weight_decay=0.0,
        context_weight=0.0,
    )
    taught = train_supervised(base.decoder, demonstrations(config, base.renderer), settings, tick)
    save(taught, base.config, directory, chat_files(Path(config.base.path)))


class Run:
    """The stages of one seed, each of which goes on from what its files hold."""

    def __init__(self, config: ConfigDict, workdir: epath.Path) -> None:
        model = Path(config.base.path)
        if not (model / "config.json").exists():
            make_model(model)
        untaught = load_base(config)
        self.root = open_run(workdir, config, untaught)
        self.config = config.copy_and_resolve_references()
        self.config.base.path = str(self.root / "warm")
        self.clock, self.progress, self.target = Clock(self.root / "stage_times.jsonl"), Progress(), ShortHelpdesk()
        if not (self.root / "warm" / "config.json").exists():
            with self.clock.stage(WARM), self.progress:
                self._teach(config, untaught)
        self.base = load_base(self.config)

    def _teach(self, config: ConfigDict, untaught: Base) -> None:
        steps = -(-config.warm_start.demonstrations * config.warm_start.passes // config.warm_start.rows)
        with self.progress.stage(WARM, steps) as bar:

            def tick(step: int, loss: float) -> None:
                bar.advance()
                if step in (1, steps):
                    self.progress.print(f"{WARM}, step {step}: loss {loss:.3f} nats a token")

            warm_start(config, untaught, self.root / "warm", tick)

    def train(self) -> AdapterManifest:
        """GRPO on the training tickets."""
        config = self.config
        settings = GRPOConfig(**{**config.training.to_dict(), "seed": config.seed})
        engine = make_engine(config, self.base, max_adapters=settings.max_staleness + 1, max_rank=settings.rank)
        agent = Agent(
            self.base.decoder, self.base.revision, self.base.renderer, engine, limits(config), settings.max_turn_tokens,
            settings.concurrency, settings.temperature,
        )  # fmt: skip
        tasks = self.target.tasks("train")[: config.target.train_tasks]
        with self.clock.stage(GRPO), self.progress.stage(GRPO, config.training.max_steps) as bar:

            def tick(report: StepReport) -> None:
                bar.advance(reward=report.metrics["reward/mean"], tokens=report.tokens)

            return pipeline.train_on_target(
                agent, self.target, self.target.name, tasks, "grpo", settings, self.root / "adapter", tick,
                tensorboard=config.telemetry.tensorboard, wandb=config.telemetry.wandb,
            )  # fmt: skip

    def evaluate(self, adapter: AdapterManifest | None = None) -> EvaluationReport:
        """The warm start and, if there is one, the adapter on the held-out tickets."""
        config, path = self.config, epath.Path(self.root / "adapter" / MANIFEST)
        methods = temperatures(config, WARM, always(None), 0)
        loras = {} if adapter is None else load_adapters([(path, adapter)], self.base)
        if adapter is not None:
            methods += temperatures(config, GRPO, always(adapter.name), adapter.rollouts)
        label = "evaluation before" if adapter is None else "evaluation after"
        tasks = self.target.tasks("held_out")[: config.target.held_out_tasks]
        with self.clock.stage(label):
            played = play(
                config, self.base, self.target, "held_out", tasks, loras, methods, config.evaluation.trials,
                self.progress, label, self.root / "trajectories.jsonl", (WARM,),
            )  # fmt: skip
        return played.report


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Every stage that is not done yet."""
    if not (workdir / SUMMARY).exists():
        stages = Run(config, workdir)
        with stages.progress:
            print_evaluation(stages.evaluate())
            report = stages.evaluate(stages.train())
        write_document(stages.root / REPORT, report)
        title = f"SmolLM2-135M-Instruct on {report.target}, seed {config.seed}"
        summary = RunSummary(title=title, evaluation=REPORT, stage_seconds=stages.clock.seconds())
        write_document(stages.root / SUMMARY, summary)
    data = load_report_data(workdir)
    write_report(data, workdir / "report.html")
    for metrics in data.metrics.values():
        print_learning(metrics)
    print_evaluation(data.evaluation)
    print(f"{sum(data.stage_seconds.values()):.0f} s in all; see {workdir / 'report.html'}")


if __name__ == "__main__":
    run(main)
