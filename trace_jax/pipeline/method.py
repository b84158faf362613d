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
from trace_jax.analysis.stage import CALLS as ANALYSIS_CALLS
from trace_jax.analysis.stage import SOURCE, Analysis, analyse
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.capability import Candidate, SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.checks.quick import require_sound
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.pipeline.checks import check_settings, open_run, trained_adapter
from trace_jax.pipeline.environments import EnvironmentMaker, Made, check_postponed
from trace_jax.pipeline.given_away import given_away
from trace_jax.pipeline.jobs import adapter_job, target_job
from trace_jax.pipeline.router_prompts import router_prompts
from trace_jax.pipeline.routing import make_router
from trace_jax.pipeline.stage_times import StageTimes
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.recording import Recording
from trace_jax.routing.gate_training import LabelledPrompt
from trace_jax.routing.router import Router
from trace_jax.run_settings import RunSettings
from trace_jax.session import load_base, open_session
from trace_jax.synthesis.designers import CALLS, make_designer
from trace_jax.telemetry.progress import Progress
from trace_jax.training.job import Job
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train

BASE_ROLLOUTS, DO_NOTHING = "base_rollouts.jsonl", "do_nothing.jsonl"
ANALYSIS, ENVIRONMENTS = "analysis", "environments"
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
        analysed = workdir / ANALYSIS / ANALYSIS_CALLS
        self.analyst = make_analyst(
            settings.analysis.analyst, analysis=settings.analysis, llm=settings.llm, record=analysed
        )
        designer = make_designer(
            settings.synthesis,
            llm=settings.llm,
            record=workdir / ENVIRONMENTS / CALLS,
            seed=settings.seed,
            earlier=[analysed],
        )
        self.base = load_base(settings)
        self.session = open_session(settings, self.base)
        self.root = open_run(workdir, settings, self.base)
        self.times, self.progress = StageTimes(self.root / "stage_times.jsonl"), Progress()
        self.environments = EnvironmentMaker(
            self.session, self.target, designer, self.root / ENVIRONMENTS, self.progress, lambda: self._episodes
        )
        self.rollouts_analysed = len(self.source.tasks) * settings.rollout.trials

    def find_capabilities(self) -> Analysis:
        """Stage 1: roll the base out on the training tasks, and analyse the trajectories."""
        settings, directory = self.settings, self.root / ANALYSIS
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

    def make_environment(self, selected: SelectedCapability) -> Made:
        """Stage 2 for one capability: a manifest, the FAILED capability, or a postponed one.

        Its rollouts are in the same directory.
        """
        with self.times.stage("synthesis"):
            made = self.environments.make(selected)
        if isinstance(made, SelectedCapability):
            self.keep_status(made, Status.FAILED)
        elif isinstance(made, EnvironmentManifest):
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
                job = adapter_job(
                    manifests,
                    environments or self.root / ENVIRONMENTS,
                    name,
                    directory,
                    own=self.own,
                    sandbox=self.settings.sandbox,
                )
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
        with self.times.stage("training of the router"):
            return make_router(
                adapters,
                candidates,
                partial(self._prompts, manifests, adapters, candidates),
                settings=self.settings,
                base=self.base,
                directory=self.root / "routing",
                rollouts=rollouts,
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
            target=self.target,
            own=self.own,
            prompts=self.settings.routing.prompts,
            episodes=self._episodes,
            sandbox=self.settings.sandbox,
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

    Raises UserError when no capability got an environment, and ServerAway when one waits for the next start.
    """
    analysis, spent = pipeline.find_capabilities(), pipeline.rollouts_analysed
    names = ", ".join(selected.capability.name for selected in analysis.selected)
    pipeline.progress.print(f"selected: {names or 'nothing'}")

    made = [pipeline.make_environment(selected) for selected in analysis.selected]
    check_postponed(made)
    spent += sum(each.rollouts for each in made)
    found = zip(analysis.selected, made, strict=True)
    environments = [(selected, each) for selected, each in found if isinstance(each, EnvironmentManifest)]
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
