"""The stages of a pipeline run as one program after another calls them: each goes on from what its files hold."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from trace_jax import pipeline
from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import SOURCE, Analysis
from trace_jax.base_agent import Agent, roll_out
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate, SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import JsonLinesWriter, read_records, write_document
from trace_jax.contract.record import Record
from trace_jax.contract.storage import is_local
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.registry import load_target
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.routing.load import ROUTERS
from trace_jax.routing.router import Router
from trace_jax.routing.settings import RoutingSettings
from trace_jax.session import Base, load_base, make_engine, read_settings
from trace_jax.synthesis.rules import make_designer
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.telemetry.progress import Progress
from trace_jax.training.config import GRPOConfig
from trace_jax.training.job import StepReport


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
    """What the stages share: the base with its engine, the target, the configuration and the work directory.

    The directory is opened last, when the whole configuration has been found usable, and belongs to this base from then
    on. Raises UserError for a setting that a later stage would refuse, and for a directory of another run.
    """

    def __init__(self, config: ConfigDict, workdir: epath.Path) -> None:
        self.config, self.name = config, str(config.target.environment)
        self.target = load_target(self.name)
        self.source = target_source(self.target, self.name, "train", config.target.train_tasks)
        self.analyst, self.designer = make_analyst(config.analysis.analyst), make_designer(config.synthesis.designer)
        self.routing = read_settings(config, RoutingSettings)
        self.synthesis = read_settings(config, SynthesisSettings)
        _check(config)
        self.base = load_base(config)
        self.agent = Agent(
            self.base.decoder,
            self.base.revision,
            self.base.renderer,
            make_engine(
                config, self.base, max_adapters=config.training.max_staleness + 2, max_rank=config.training.rank
            ),
            read_settings(config, RolloutSettings),
        )
        self.root = open_run(workdir, config, self.base)
        self.clock, self.progress = Clock(self.root / "stage_times.jsonl"), Progress()

    @property
    def analysed(self) -> int:
        """Rollouts that the analysis reads."""
        return len(self.source.tasks) * int(self.config.rollout.trials)

    def find_capabilities(self) -> Analysis:
        """Roll the base out on the training tasks and analyse."""
        config = self.config
        with self.clock.stage("rollouts of the base"):
            begun = (self.root / "analysis" / SOURCE).exists()  # on what was recorded, broken episodes included
            recording = Recording(self.root / "base_rollouts.jsonl", keep_broken=begun)
            with self.progress.stage("rollouts of the base", self.analysed) as bar:
                rollouts = roll_out(self.agent, self.source, config.seed, recording, bar.episode)
        with self.clock.stage("analysis"):
            analysis = pipeline.find_capabilities(
                rollouts,
                self.analyst,
                config.analysis.runs,
                config.seed,
                Criteria(min_support=config.analysis.min_support),
                self.root / "analysis",
            )
        return analysis

    def make_environment(self, selected: SelectedCapability) -> EnvironmentManifest | SelectedCapability:
        """Synthesise for one capability, and keep how far it has come."""
        name, settings = selected.capability.name, self.synthesis
        rollouts = settings.calibration_groups * settings.calibration_group_size
        with self.clock.stage("synthesis"):
            with self.progress.stage(f"synthesis of {name}", rollouts) as bar:
                made = pipeline.make_environment(
                    self.agent,
                    selected,
                    designer=self.designer,
                    target=self.target,
                    target_name=self.name,
                    settings=settings,
                    seed=self.config.seed,
                    directory=self.root / "environments",
                    tick=bar.episode,
                )
        if isinstance(made, SelectedCapability):
            self.keep_status(made, Status.FAILED)
            self.progress.print(f"{name} FAILED: {made.reason}")
        else:
            self.keep_status(selected, Status.VALIDATED)
        return made

    def train_adapter(
        self,
        name: str,
        manifests: Sequence[EnvironmentManifest],
        environments: Path | None = None,
        rollouts: int | None = None,
    ) -> AdapterManifest:
        """One adapter on the environments of ``manifests``, as ``training`` says or for just so many ``rollouts``.

        ``environments`` holds the manifests: this run's own directory if it is None.
        """
        environments = environments or self.root / "environments"
        config = grpo_config(self.config) if rollouts is None else self._spending(rollouts)
        with self.clock.stage("training of the adapters"), self._training(name, config) as report:
            directory = self.root / "adapters" / name
            return pipeline.train_adapter(
                self.agent, manifests, environments, name, config, directory, report, **self._writers()
            )

    def train_router(
        self,
        manifests: Sequence[EnvironmentManifest],
        adapters: Sequence[AdapterManifest],
        candidates: Sequence[Candidate],
        rollouts: int,
    ) -> Router:
        """The router over ``adapters``, each trained on the environment of the same place in ``manifests``."""
        with self.clock.stage("training of the router"):
            return pipeline.build_router(
                self.agent,
                manifests,
                adapters,
                candidates,
                self.designer,
                self.target,
                settings=self.routing,
                rollouts=rollouts,
                seed=self.config.seed,
                directory=self.root / "routing",
            )

    def train_on_target(self, rollouts: int, name: str = "grpo_on_target", **changes: Any) -> AdapterManifest:
        """The baseline: GRPO on the target itself with as many rollouts; ``changes`` of the training's settings."""
        config = self._spending(rollouts, **changes)
        with self.clock.stage("GRPO on the target"), self._training("GRPO on the target", config) as report:
            directory, tasks = self.root / "baselines" / name, self.source.tasks
            return pipeline.train_on_target(
                self.agent, self.target, self.name, tasks, name, config, directory, report, **self._writers()
            )

    def keep_status(self, selected: SelectedCapability, status: Status) -> None:
        """Write how far a capability has come."""
        write_document(self.root / "capabilities" / f"{selected.capability.name}.json", selected.replace(status=status))

    def _spending(self, rollouts: int, **changes: Any) -> GRPOConfig:
        """The training's settings for a comparison at equal rollouts: all of them are spent, learnt or not."""
        return grpo_config(self.config, max_steps=None, max_rollouts=rollouts, stop_reward=None, **changes)

    def _writers(self) -> dict[str, bool]:
        return {"tensorboard": self.config.telemetry.tensorboard, "wandb": self.config.telemetry.wandb}

    @contextmanager
    def _training(self, name: str, config: GRPOConfig) -> Iterator[Callable[[StepReport], None]]:
        steps = config.max_steps or -(-(config.max_rollouts or 0) // (config.groups_per_step * config.num_generations))
        with self.progress.stage(f"training {name}", steps) as bar:
            yield lambda report: bar.advance(reward=report.metrics.get("reward/mean"), tokens=report.tokens)


def open_run(workdir: epath.Path, config: ConfigDict, base: Base) -> Path:
    """The work directory of a run with ``config`` on ``base``: made, or gone on in if it is this run's."""
    if not is_local(workdir):
        raise UserError(f"{workdir}: the pipeline works on a local disk: choose a local --workdir and copy it on")
    settings = config.to_dict()
    for name in ("url", "relay_port_offset", "request_seconds", "wait_seconds"):
        del settings["engine"][name]  # servers may move
    return Path(open_workdir(workdir, {**settings, "base_revision": base.revision}))


def _check(config: ConfigDict) -> None:
    """What the stages would refuse hours later."""
    if config.training.max_steps is None:
        raise UserError("training.max_steps is not set: say how many steps an adapter is trained for")
    if config.training.max_rollouts is not None:
        raise UserError(
            f"training.max_rollouts is {config.training.max_rollouts}: the pipeline sets it for GRPO on the target, to "
            "what TRACE has spent; bound the adapters by training.max_steps"
        )
    grpo_config(config)
    if config.routing.router not in ROUTERS:
        raise UserError(f"routing.router {config.routing.router!r}: use one of {', '.join(ROUTERS)}")
    for name in (
        "target.train_tasks", "target.held_out_tasks", "rollout.trials", "analysis.runs", "evaluation.trials",
        "synthesis.calibration_groups", "synthesis.calibration_group_size", "synthesis.max_rounds", "routing.prompts",
    ):  # fmt: skip
        section, field = name.split(".")
        if config[section][field] < 1:
            raise UserError(f"{name} is {config[section][field]}: at least 1 is needed")


def grpo_config(config: ConfigDict, **changes: Any) -> GRPOConfig:
    """The training's settings with ``changes``."""
    return GRPOConfig(**{**config.training.to_dict(), "seed": config.seed, **changes})
