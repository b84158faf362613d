"""The four stages in order. Each function reads what is on disk first and goes on from there; nothing is done twice."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from trace_jax.analysis.analyst import Analyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import Analysis, analyse
from trace_jax.base_agent import Agent, Tick, calibrate_on, calibration_groups, calibration_path
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate, SelectedCapability
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import Practice, Practised, Target
from trace_jax.environments.registry import environment_factory
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import save_gate
from trace_jax.routing.gate_training import LabelledPrompt, train_gate
from trace_jax.routing.load import load_router
from trace_jax.routing.router import Router
from trace_jax.routing.select import choices, make_policy
from trace_jax.routing.settings import RoutingSettings
from trace_jax.routing.table import build_table
from trace_jax.synthesis.designer import Designer, DesignError, make_brief
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import synthesise
from trace_jax.training.config import GRPOConfig
from trace_jax.training.group_source import TrainingEnvironment
from trace_jax.training.job import Job, StepReport
from trace_jax.training.run import MANIFEST
from trace_jax.training.trainer import train

FIRST_TRAINING_SEED = 1_000_000  # calibration uses the seeds below
FIRST_PROMPT_SEED = 2_000_000  # the gate's prompts, which nobody plays
_PAIR_SHARE = 4  # one in so many prompts of an adapter is drawn again together with each other capability


def find_capabilities(
    trajectories: Sequence[Trajectory], analyst: Analyst, runs: int, seed: int, criteria: Criteria, directory: Path
) -> Analysis:
    """Stage 1."""
    return analyse(trajectories, analyst, directory, runs=runs, seed=seed, criteria=criteria)


def make_environment(
    agent: Agent,
    selected: SelectedCapability,
    *,
    designer: Designer,
    target: Target,
    target_name: str,
    settings: SynthesisSettings,
    seed: int,
    directory: Path,
    tick: Tick,
) -> EnvironmentManifest | SelectedCapability:
    """Stage 2 for one capability: a manifest, or the capability as FAILED. Its rollouts are in the same directory."""
    path = calibration_path(directory, selected.capability.name)
    return synthesise(
        selected,
        designer=designer,
        target=target,
        target_name=target_name,
        rollout=partial(calibrate_on, agent, selected.capability.name, target_name, seed, path, tick),
        settings=settings,
        seed=seed,
        directory=directory,
    )


def train_adapter(
    agent: Agent,
    manifests: Sequence[EnvironmentManifest],
    environments: Path,
    name: str,
    config: GRPOConfig,
    directory: Path,
    progress: Callable[[StepReport], None],
    tensorboard: bool,
    wandb: bool,
) -> AdapterManifest:
    """Stage 3: one adapter on one environment, or on the mixture of several; ``environments`` holds the manifests.

    An adapter that has learnt nothing is the base, so the base's calibration rollouts are its first batches, spent
    already: unless they were sampled at another temperature than the one it is trained for.
    """
    if (directory / MANIFEST).exists():
        return read_document(directory / MANIFEST, AdapterManifest)
    job = adapter_job(manifests, environments, name, directory, agent.rollout.temperature == config.temperature)
    return _train(agent, job, config, progress, tensorboard, wandb)


def adapter_job(
    manifests: Sequence[EnvironmentManifest], environments: Path, name: str, directory: PathLike, played: bool
) -> Job:
    """One adapter for the environments of ``manifests``; ``played``: its first batches are the base's calibrations."""
    grounds = [
        TrainingEnvironment(m.name, environment_factory(m.design), None, m.target, "train", FIRST_TRAINING_SEED)
        for m in manifests
    ]
    calibrations = [calibration_groups(m, environments) for m in manifests if played]
    turns = itertools.zip_longest(*calibrations)
    groups = [group for turn in turns for group in turn if group is not None]
    return Job(name, directory, grounds, tuple(m.capability for m in manifests), groups)


def train_on_target(
    agent: Agent,
    target: Target,
    target_name: str,
    tasks: tuple[int, ...],
    name: str,
    config: GRPOConfig,
    directory: Path,
    progress: Callable[[StepReport], None],
    tensorboard: bool,
    wandb: bool,
) -> AdapterManifest:
    """The baseline: GRPO on the target's own training ``tasks``; ``name`` is its adapter's."""
    if (directory / MANIFEST).exists():
        return read_document(directory / MANIFEST, AdapterManifest)
    return _train(agent, target_job(target, target_name, tasks, name, directory), config, progress, tensorboard, wandb)


def target_job(target: Target, target_name: str, tasks: tuple[int, ...], name: str, directory: PathLike) -> Job:
    """One adapter for the target's own training ``tasks``."""
    ground = TrainingEnvironment(target_name, lambda: target.environment("train"), tasks, target_name, "train")
    return Job(name, directory, [ground], ())


def _train(
    agent: Agent,
    job: Job,
    config: GRPOConfig,
    progress: Callable[[StepReport], None],
    tensorboard: bool,
    wandb: bool,
) -> AdapterManifest:
    (manifest,) = train(
        [job],
        decoder=agent.decoder,
        engine=agent.engine,
        renderer=agent.renderer,
        config=config,
        base=agent.revision,
        rollout=agent.rollout,
        tensorboard=tensorboard,
        wandb=wandb,
        progress=progress,
    )
    return manifest


def build_router(
    agent: Agent,
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    designer: Designer,
    target: Target,
    *,
    settings: RoutingSettings,
    rollouts: int,
    seed: int,
    directory: Path,
) -> Router:
    """Stage 4: the route table, and the gate if ``settings.router`` names it, trained on prompts of environments alone.

    There are ``settings.prompts`` prompts a choice. The prompts of the base need no adapter: they come from practice
    for ``candidates`` that were not selected, and from routine episodes of the environments. Further prompts need two
    capabilities, and so both adapters, or the one that there is. ``rollouts`` is the number that capabilities and
    environments took, without those of the adapters.
    """
    reader = PromptReader(agent.decoder)
    table_path, gate_path = directory / "route_table.json", directory / "gate.safetensors"
    if not table_path.exists():
        descriptions = {candidate.name: candidate.description for candidate in candidates}
        table = build_table(
            agent.revision,
            settings.router,
            adapters,
            descriptions,
            minimum_weight=settings.minimum_weight,
            rollouts=rollouts,
        )
        if settings.router == "gate":
            examples = _routing_prompts(manifests, adapters, candidates, designer, target, settings.prompts)
            gate, _ = train_gate(examples, choices(table), agent.revision, reader, agent.renderer, seed)
            save_gate(gate_path, gate)
            table = table.replace(gate=gate_path.name)
        write_document(table_path, table)
    return load_router(table_path, agent.revision, reader, agent.renderer, make_policy(settings))


def _routing_prompts(
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    designer: Designer,
    target: Target,
    prompts: int,
) -> list[LabelledPrompt]:
    spare = {name: design for name, design in _spare_designs(candidates, manifests, designer, target)}
    practice = {name: _practice(target, name) for name in (*spare, *(manifest.capability for manifest in manifests))}
    alone = [_exercised(practice[name], design) for name, design in spare.items()]
    for manifest in manifests:
        of_manifest = practice[manifest.capability]
        if of_manifest is not None and (routine := of_manifest.routine(manifest.design)) is not None:
            alone.append(routine)
    adapter_of = {m.capability: (adapter.name,) for m, adapter in zip(manifests, adapters, strict=True)}
    others = [*adapter_of, *spare]
    asked: list[tuple[Design, tuple[str, ...], int]] = [(design, (), -(-prompts // len(alone))) for design in alone]
    for manifest in manifests:
        needed = adapter_of[manifest.capability]
        of_manifest = practice[manifest.capability]
        asked.append((_exercised(of_manifest, manifest.design), needed, prompts))
        for other in others:
            if of_manifest is None or other == manifest.capability:
                continue
            if (pair := of_manifest.combined(manifest.design, other)) is not None:
                asked.append((pair, needed + adapter_of.get(other, ()), prompts // _PAIR_SHARE))
    return [_prompt(design, needed, FIRST_PROMPT_SEED + i) for design, needed, number in asked for i in range(number)]


def _spare_designs(
    candidates: Sequence[Candidate], manifests: Sequence[EnvironmentManifest], designer: Designer, target: Target
) -> Iterator[tuple[str, Design]]:
    """First designs for the candidates that have no environment yet, where the designer has one to offer."""
    taken = {manifest.capability for manifest in manifests}
    for candidate in candidates:
        if candidate.name not in taken:
            try:
                yield candidate.name, designer.design(make_brief(candidate, manifests[0].target, target), ())
            except DesignError:
                continue  # nothing to draw prompts from: distractors have no generator


def _practice(target: Target, capability: str) -> Practice | None:
    return target.practice(capability) if isinstance(target, Practised) else None


def _exercised(practice: Practice | None, design: Design) -> Design:
    """A design whose every prompt needs the capability, if the target's practice can change it to one."""
    changed = None if practice is None else practice.exercised(design)
    return design if changed is None else changed


def _prompt(design: Design, adapters: tuple[str, ...], seed: int) -> LabelledPrompt:
    environment = environment_factory(design)()
    return LabelledPrompt(environment.reset(seed).messages, environment.tools, adapters)
