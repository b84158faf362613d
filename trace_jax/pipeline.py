"""The four stages in order. Each function reads what is on disk first and goes on from there; nothing is done twice."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from trace_jax.analysis.analyst import Analyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import Analysis, analyse
from trace_jax.base_agent import Agent, Tick, calibrate_on, calibration_groups
from trace_jax.contract.adapter import MANIFEST, AdapterManifest, check_adapter
from trace_jax.contract.capability import Candidate, SelectedCapability
from trace_jax.contract.digest import checksum
from trace_jax.contract.environment import Design, EnvironmentManifest, calibration_path
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.routing import RouterKind
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import Target
from trace_jax.environments.registry import environment_factory
from trace_jax.errors import UserError
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import save_gate
from trace_jax.routing.gate_training import LabelledPrompt, train_gate
from trace_jax.routing.load import load_router
from trace_jax.routing.router import Router
from trace_jax.routing.select import Policy, choices
from trace_jax.routing.table import build_table
from trace_jax.synthesis.designer import Designer, DesignError, make_brief
from trace_jax.synthesis.stage import SynthesisConfig, synthesise
from trace_jax.training.config import GRPOConfig
from trace_jax.training.group_source import TrainingEnvironment
from trace_jax.training.job import Job, StepReport
from trace_jax.training.trainer import train

FIRST_TRAINING_SEED = 1_000_000  # calibration uses the seeds below
FIRST_PROMPT_SEED = 2_000_000  # the gate's prompts, which nobody plays
_PAIR_SHARE = 4  # of the prompts of an adapter, one in so many is asked for again with each other capability beside it


def find_capabilities(
    trajectories: Sequence[Trajectory], analyst: Analyst, runs: int, seed: int, criteria: Criteria, directory: Path
) -> Analysis:
    """Stage 1."""
    return analyse(trajectories, analyst, directory, runs=runs, seed=seed, criteria=criteria)


def make_environment(
    agent: Agent,
    selected: SelectedCapability,
    designer: Designer,
    name: str,
    target: Target,
    config: SynthesisConfig,
    directory: Path,
    tick: Tick,
) -> EnvironmentManifest | SelectedCapability:
    """Stage 2 for one capability: a manifest, or the capability as FAILED; its rollouts are kept beside either."""
    path = calibration_path(directory, selected.capability.name)
    rollout = partial(calibrate_on, agent, selected.capability.name, name, config.seed, path, tick)
    return synthesise(selected, designer, name, target, rollout, config, directory, path)


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
        return _trained(directory, name)
    job = adapter_job(manifests, environments, name, directory, agent.temperature == config.temperature)
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
        return _trained(directory, name)
    return _train(agent, target_job(target, target_name, tasks, name, directory), config, progress, tensorboard, wandb)


def _trained(directory: Path, name: str) -> AdapterManifest:
    """The manifest of an adapter that is trained already, whose files are those of its training."""
    manifest = read_document(directory / MANIFEST, AdapterManifest)
    if manifest.name != name:
        raise UserError(f"{directory / MANIFEST}: manifest of adapter {manifest.name!r}, not {name!r}: restore it")
    check_adapter(directory / MANIFEST, manifest)
    return manifest


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
        limits=agent.limits,
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
    kind: RouterKind,
    policy: Policy,
    prompts: int,
    minimum_weight: float,
    rollouts: int,
    seed: int,
    directory: Path,
) -> Router:
    """Stage 4: the route table and, for ``kind`` gate, the gate, trained on prompts of synthesised environments alone.

    ``prompts`` prompts a choice. The base's come from generators for the ``candidates`` that were not selected and from
    wholly routine tickets of the environments: what the base needs no adapter for. More prompts ask for two
    capabilities, and need both adapters, or the one that there is. ``rollouts``:
    what the capabilities and environments took, the adapters aside.
    """
    reader = PromptReader(agent.decoder)
    table_path, gate_path = directory / "route_table.json", directory / "gate.safetensors"
    if not table_path.exists():
        descriptions = {candidate.name: candidate.description for candidate in candidates}
        table = build_table(
            agent.revision, kind, adapters, descriptions, minimum_weight=minimum_weight, rollouts=rollouts
        )
        if kind == "gate":
            examples = _routing_prompts(manifests, adapters, candidates, designer, target, prompts)
            gate, _ = train_gate(examples, choices(table), agent.revision, reader, agent.renderer, seed)
            save_gate(gate_path, gate)
            table = table.replace(gate=gate_path.name, gate_sha256=checksum(gate_path).sha256)
        write_document(table_path, table)
    return load_router(table_path, agent.revision, reader, agent.renderer, policy)


def _routing_prompts(
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    designer: Designer,
    target: Target,
    prompts: int,
) -> list[LabelledPrompt]:
    spare = list(_spare_designs(candidates, manifests, designer, target))
    alone = [_turned(design, contrast_every=0) for _, design in spare]
    alone += [_turned(manifest.design, contrast_every=1) for manifest in manifests]
    adapter_of = {m.capability: (adapter.name,) for m, adapter in zip(manifests, adapters, strict=True)}
    others = [*adapter_of, *(name for name, _ in spare)]
    asked: list[tuple[Design, tuple[str, ...], int]] = [(design, (), -(-prompts // len(alone))) for design in alone]
    for manifest in manifests:
        needed = adapter_of[manifest.capability]
        asked.append((_turned(manifest.design, contrast_every=0), needed, prompts))
        for other in others:
            if other != manifest.capability:
                pair = _turned(manifest.design, exercised=1, routine=1, contrast_every=0, beside=other)
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


def _turned(design: Design, **knobs: int | str) -> Design:
    """The design with other knobs: a label has to be what its prompt is about, so no prompt is routine by chance."""
    return Design(entry_point=design.entry_point, parameters={**design.parameters, **knobs})


def _prompt(design: Design, adapters: tuple[str, ...], seed: int) -> LabelledPrompt:
    environment = environment_factory(design)()
    return LabelledPrompt(environment.reset(seed).messages, environment.tools, adapters)
