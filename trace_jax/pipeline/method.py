"""The four stages in order, on one work directory. Each goes on from what its files hold; nothing is done twice.

pipeline = Pipeline(settings, workdir)
trained = run_method(pipeline)  # a router over adapters, and the baseline that spent as many rollouts
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from etils import epath

from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import SOURCE, Analysis, analyse
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.capability import Candidate, SelectedCapability, Status
from trace_jax.contract.digest import checksum
from trace_jax.contract.environment import EnvironmentManifest, calibration_path
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.checks.quick import require_sound
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.pipeline.calibration import CalibrationRollouts
from trace_jax.pipeline.checks import check_settings, open_run, trained_adapter
from trace_jax.pipeline.gate import learnt_gate
from trace_jax.pipeline.given_away import given_away
from trace_jax.pipeline.jobs import adapter_job, target_job
from trace_jax.pipeline.router_prompts import router_prompts
from trace_jax.pipeline.stage_times import StageTimes
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.recording import Recording
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import save_gate
from trace_jax.routing.gate_training import LabelledPrompt
from trace_jax.routing.load import load_router
from trace_jax.routing.router import Router
from trace_jax.routing.select import make_policy
from trace_jax.routing.table import build_table
from trace_jax.run_settings import RunSettings
from trace_jax.session import load_base, open_session
from trace_jax.synthesis.rules import make_designer
from trace_jax.synthesis.stage import synthesise
from trace_jax.telemetry.progress import Progress
from trace_jax.training.job import Job
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train

BASE_ROLLOUTS, DO_NOTHING = "base_rollouts.jsonl", "do_nothing.jsonl"
ROUTE_TABLE, GATE = "route_table.json", "gate.safetensors"
SNAPSHOTS = (0.25, 0.5, 0.75)  # of the baseline's rollouts, at which its adapter is kept for the report's curve


class Pipeline:
    """The stages of one run, which share a session (base and engine), a target and a work directory.

    The directory is opened last, once all settings have been found usable. It belongs to these settings and this base
    from then on. Raises UserError for a setting that a later stage would refuse, and for a directory of another run.

    Attributes:
        root: the work directory.
        rollouts_analysed: episodes that the analysis reads.
    """

    def __init__(self, settings: RunSettings, workdir: epath.Path) -> None:
        check_settings(settings)
        self.settings, self.name, self.own = settings, settings.target.environment, settings.target.design
        self.target = open_target(settings.target)
        require_sound(self.target, self.name)
        self.source = target_source(self.target, self.name, "train", settings.target.train_tasks)
        self.analyst, self.designer = (
            make_analyst(settings.analysis.analyst),
            make_designer(settings.synthesis.designer),
        )
        self.base = load_base(settings)
        self.session = open_session(settings, self.base)
        self.root = open_run(workdir, settings, self.base)
        self.times, self.progress = StageTimes(self.root / "stage_times.jsonl"), Progress()
        self.rollouts_analysed = len(self.source.tasks) * settings.rollout.trials

    def find_capabilities(self) -> Analysis:
        """Stage 1: roll the base out on the training tasks, and analyse the trajectories."""
        settings, directory = self.settings, self.root / "analysis"
        with self.times.stage("rollouts of the base"):
            begun = (directory / SOURCE).exists()  # the analysis is of what was recorded, broken episodes included
            recording = Recording(self.root / BASE_ROLLOUTS, keep_broken=begun)
            specs = plan_episodes(self.source, settings.rollout, seed=settings.seed)
            with self.progress.stage("rollouts of the base", len(specs)) as bar:
                trajectories = self.session.play(specs, recording, bar.episode)
            free = given_away(self.target, self.source, settings, self.root / DO_NOTHING, keep_broken=begun)
        with self.times.stage("analysis"):
            return analyse(
                trajectories,
                self.analyst,
                directory,
                runs=settings.analysis.runs,
                seed=settings.seed,
                criteria=Criteria(min_support=settings.analysis.min_support),
                given_away=free,
            )

    def make_environment(self, selected: SelectedCapability) -> EnvironmentManifest | SelectedCapability:
        """Stage 2 for one capability: a manifest, or the FAILED capability. Its rollouts are in the same directory."""
        name, settings = selected.capability.name, self.settings.synthesis
        directory = self.root / "environments"
        with (
            self.times.stage("synthesis"),
            self.progress.stage(
                f"synthesis of {name}", settings.calibration_groups * settings.calibration_group_size
            ) as bar,
        ):
            path = calibration_path(directory, name)
            rollouts = CalibrationRollouts(self.session, name, self.own, path, bar.episode)
            made = synthesise(
                selected,
                designer=self.designer,
                target=self.target,
                own=self.own,
                rollout=rollouts,
                settings=settings,
                seed=self.settings.seed,
                directory=directory,
                evidence=self._episodes,
                recorded=path,
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
        """Stage 3: one adapter on the environments of ``manifests``, as ``training`` says or for so many ``rollouts``.

        ``environments`` holds the manifests; None is this run's own directory.
        """
        training = self.settings.training if rollouts is None else self._spending(rollouts)
        directory = self.root / "adapters" / name
        with self.times.stage("training of the adapters"):
            if not (directory / MANIFEST).exists():
                job = adapter_job(manifests, environments or self.root / "environments", name, directory, own=self.own)
                self._train(name, job, training)
        return trained_adapter(directory, name)

    def train_router(
        self,
        manifests: Sequence[EnvironmentManifest],
        adapters: Sequence[AdapterManifest],
        candidates: Sequence[Candidate],
        rollouts: int,
    ) -> Router:
        """Stage 4: the router over ``adapters``, each trained on the environment of the same place in ``manifests``.

        A gate is trained on prompts of synthesised environments alone. Where they have too few, the classifier routes,
        with a warning in the log. ``candidates`` is the dictionary of the analysis. ``rollouts`` is what capabilities
        and environments took, without the adapters.
        """
        routing, base, directory = self.settings.routing, self.base, self.root / "routing"
        reader = PromptReader(base.decoder)
        with self.times.stage("training of the router"):
            if not (directory / ROUTE_TABLE).exists():
                table = build_table(
                    base.revision,
                    routing.router,
                    adapters,
                    {candidate.name: candidate.description for candidate in candidates},
                    minimum_weight=routing.minimum_weight,
                    rollouts=rollouts,
                )
                if routing.router == "gate":
                    prompts = partial(self._prompts, manifests, adapters, candidates)
                    gate = learnt_gate(table, prompts, base, reader, self.settings.seed)
                    if gate is None:
                        table = table.replace(router="classifier")
                    else:
                        save_gate(directory / GATE, gate)
                        table = table.replace(gate=GATE, gate_sha256=checksum(directory / GATE).sha256)
                write_document(directory / ROUTE_TABLE, table)
            return load_router(
                directory / ROUTE_TABLE,
                base.revision,
                reader,
                base.renderer,
                make_policy(routing),
                configured=routing.router,
            )

    def train_on_target(self, rollouts: int, name: str = "grpo_on_target", **changes: Any) -> AdapterManifest:
        """The baseline: GRPO on the target's own training tasks, with as many rollouts; ``changes`` of the training."""
        directory = self.root / "baselines" / name
        with self.times.stage("GRPO on the target"):
            if not (directory / MANIFEST).exists():
                job = target_job(self.target, self.name, self.source.tasks, name, directory)
                self._train("GRPO on the target", job, self._spending(rollouts, **changes))
        return trained_adapter(directory, name)

    def keep_status(self, selected: SelectedCapability, status: Status) -> None:
        """Write how far a capability has come."""
        write_document(self.root / "capabilities" / f"{selected.capability.name}.json", selected.replace(status=status))

    @cached_property
    def _episodes(self) -> tuple[Trajectory, ...]:
        """The base's episodes on the training tasks; none where another run has analysed them."""
        path = self.root / BASE_ROLLOUTS
        return tuple(read_episodes(path)) if path.exists() else ()

    def _prompts(
        self,
        manifests: Sequence[EnvironmentManifest],
        adapters: Sequence[AdapterManifest],
        candidates: Sequence[Candidate],
    ) -> list[LabelledPrompt]:
        return router_prompts(
            manifests,
            adapters,
            candidates,
            designer=self.designer,
            target=self.target,
            own=self.own,
            prompts=self.settings.routing.prompts,
            episodes=self._episodes,
        )

    def _spending(self, rollouts: int, **changes: Any) -> GRPOConfig:
        """The training's settings for a comparison at equal rollouts: all are spent, also after the task is learnt."""
        return replace(self.settings.training, max_steps=None, max_rollouts=rollouts, stop_reward=None, **changes)

    def _train(self, label: str, job: Job, training: GRPOConfig) -> None:
        base, settings = self.base, self.settings
        with self.progress.stage(f"training {label}", training.most_steps) as bar:
            train(
                [job],
                decoder=base.decoder,
                engine=self.session.engine,
                renderer=base.renderer,
                training=training,
                rollout=settings.rollout,
                seed=settings.seed,
                base=base.revision,
                telemetry=settings.telemetry,
                progress=lambda report: bar.advance(reward=report.metrics.get("reward/mean"), tokens=report.tokens),
            )


@dataclass(frozen=True)
class Trained:
    """What the method made, and the baseline to compare it with. ``rollouts`` is what TRACE spent in all."""

    router: Router
    adapters: list[AdapterManifest]
    baseline: AdapterManifest
    rollouts: int


def run_method(pipeline: Pipeline) -> Trained:
    """Every stage that is not done yet: capabilities, environments, adapters, router, then GRPO on the target.

    Raises UserError when no capability got an environment.
    """
    analysis, spent = pipeline.find_capabilities(), pipeline.rollouts_analysed
    names = ", ".join(selected.capability.name for selected in analysis.selected)
    pipeline.progress.print(f"selected: {names or 'nothing'}")

    environments: list[tuple[SelectedCapability, EnvironmentManifest]] = []
    for selected in analysis.selected:
        made = pipeline.make_environment(selected)
        spent += made.rollouts
        if isinstance(made, EnvironmentManifest):
            environments.append((selected, made))
    if not environments:
        raise UserError(f"{pipeline.root}: no capability has an environment: see its environments/ and analysis/")

    adapters = []
    for selected, manifest in environments:
        adapters.append(pipeline.train_adapter(manifest.name, [manifest]))
        pipeline.keep_status(selected, Status.TRAINED)
    manifests = [manifest for _, manifest in environments]
    router = pipeline.train_router(manifests, adapters, analysis.candidates.all, spent)
    spent += sum(adapter.rollouts for adapter in adapters)
    for selected, _ in environments:
        pipeline.keep_status(selected, Status.ROUTED)

    baseline = pipeline.train_on_target(spent, snapshots=SNAPSHOTS)
    return Trained(router, adapters, baseline, spent)
