"""The stages of a pipeline run as one program after another calls them: each goes on from what its files hold."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evaluation.serving import embedded_engine, limits, load_base
from trace_jax import pipeline
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import Analysis
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate, SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import JsonLinesWriter, read_records, write_document
from trace_jax.contract.record import Record
from trace_jax.environments.registry import load_target
from trace_jax.routing.router import Router
from trace_jax.routing.select import make_policy
from trace_jax.synthesis.embedded import EmbeddedDesigner
from trace_jax.synthesis.stage import SynthesisConfig
from trace_jax.telemetry.progress import Progress
from trace_jax.training.config import GRPOConfig
from trace_jax.training.trainer import StepReport


class StageTime(Record):
    """How long a stage took; a stage that was interrupted has several."""

    stage: str
    seconds: float


class Clock:
    """Stage times that outlive an interruption."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            with JsonLinesWriter(self._path) as writer:
                writer.append(StageTime(stage=name, seconds=time.monotonic() - started))

    def seconds(self) -> dict[str, float]:
        """Total of each stage, in the order of first use."""
        total: dict[str, float] = {}
        for row in read_records(self._path, StageTime):
            total[row.stage] = total.get(row.stage, 0.0) + row.seconds
        return total


class Stages:
    """What the stages share: the base with its engine, the target, the configuration and the work directory."""

    def __init__(self, config: ConfigDict, root: Path) -> None:
        self.config, self.root = config, root
        self.clock, self.progress = Clock(root / "stage_times.jsonl"), Progress()
        self.name: str = config.target.environment
        self.target = load_target(self.name)
        self.tasks = self.target.tasks("train")[: config.target.train_tasks]
        self.base = load_base(config)
        self.designer = EmbeddedDesigner()
        self.agent = pipeline.Agent(
            self.base.decoder,
            self.base.revision,
            self.base.renderer,
            embedded_engine(self.base, {}, config, max_adapters=2, max_rank=config.training.rank),
            limits(config),
            config.rollout.max_turn_tokens,
            config.rollout.concurrency,
        )

    @property
    def analysed(self) -> int:
        """Rollouts that the analysis reads."""
        return len(self.tasks) * int(self.config.rollout.trials)

    def find_capabilities(self) -> Analysis:
        """Roll the base out on the training tasks and analyse."""
        config, trials = self.config, self.config.rollout.trials
        with self.clock.stage("rollouts of the base"):
            path = self.root / "base_rollouts.jsonl"
            with self.progress.stage("rollouts of the base", self.analysed) as bar:
                rollouts = pipeline.roll_out(
                    self.agent, self.target, self.name, self.tasks, trials, config.seed, path, bar.episode
                )
        with self.clock.stage("analysis"):
            analysis = pipeline.find_capabilities(
                rollouts,
                config.analysis.analyst,
                config.analysis.runs,
                config.seed,
                Criteria(min_support=config.analysis.min_support),
                self.root / "analysis",
            )
        return analysis

    def make_environment(self, selected: SelectedCapability) -> EnvironmentManifest | SelectedCapability:
        """Synthesise for one capability, and keep how far it has come."""
        name, settings = selected.capability.name, self.config.synthesis
        with self.clock.stage("synthesis"):
            config = SynthesisConfig(
                groups=settings.calibration_groups,
                group_size=settings.calibration_group_size,
                rounds=settings.max_rounds,
                seed=self.config.seed,
            )
            with self.progress.stage(f"synthesis of {name}", config.groups * config.group_size) as bar:
                made = pipeline.make_environment(
                    self.agent,
                    selected,
                    self.designer,
                    self.name,
                    self.target,
                    config,
                    self.root / "environments",
                    bar.episode,
                )
        if isinstance(made, SelectedCapability):
            self.keep_status(made, Status.FAILED)
            self.progress.print(f"{name} FAILED: {made.reason}")
        else:
            self.keep_status(selected, Status.VALIDATED)
        return made

    def train_adapter(self, name: str, manifests: Sequence[EnvironmentManifest]) -> AdapterManifest:
        """One adapter on the environments of ``manifests``: ``training.max_steps`` steps for each of them."""
        config = self._grpo(max_steps=self.config.training.max_steps * len(manifests))
        with self.clock.stage("training of the adapters"), self._training(name, config.max_steps or 0) as report:
            directory = self.root / "adapters" / name
            return pipeline.train_adapter(self.agent, manifests, name, config, directory, report, **self._writers())

    def train_router(
        self,
        manifests: Sequence[EnvironmentManifest],
        adapters: Sequence[AdapterManifest],
        candidates: Sequence[Candidate],
        rollouts: int,
    ) -> Router:
        """The router over ``adapters``, each trained on the environment of the same place in ``manifests``."""
        settings = self.config.routing
        with self.clock.stage("training of the router"):
            return pipeline.build_router(
                self.agent,
                manifests,
                adapters,
                candidates,
                self.designer,
                self.target,
                kind=settings.router,
                policy=make_policy(settings.top_p),
                prompts=settings.prompts,
                minimum_weight=settings.minimum_weight,
                rollouts=rollouts,
                seed=self.config.seed,
                directory=self.root / "routing",
            )

    def train_on_target(self, rollouts: int, name: str = "grpo_on_target", **changes: Any) -> AdapterManifest:
        """The baseline: GRPO on the target itself with as many rollouts; ``changes`` of the training's settings."""
        config = self._grpo(max_rollouts=rollouts, **changes)
        steps = -(-rollouts // (config.groups_per_step * config.num_generations))
        with self.clock.stage("GRPO on the target"), self._training("GRPO on the target", steps) as report:
            directory = self.root / "baselines" / name
            return pipeline.train_on_target(
                self.agent, self.target, self.name, self.tasks, name, config, directory, report, **self._writers()
            )

    def keep_status(self, selected: SelectedCapability, status: Status) -> None:
        """Write how far a capability has come."""
        write_document(self.root / "capabilities" / f"{selected.capability.name}.json", selected.replace(status=status))

    def _grpo(self, **changes: Any) -> GRPOConfig:
        fields = {**self.config.training.to_dict(), "max_steps": None, "max_rollouts": None, "seed": self.config.seed}
        return GRPOConfig(**{**fields, **changes})

    def _writers(self) -> dict[str, bool]:
        return {"tensorboard": self.config.telemetry.tensorboard, "wandb": self.config.telemetry.wandb}

    @contextmanager
    def _training(self, name: str, steps: int) -> Iterator[Callable[[StepReport], None]]:
        with self.progress.stage(f"training {name}", steps) as bar:
            yield lambda report: bar.advance(reward=report.metrics.get("reward/mean"), tokens=report.tokens)
