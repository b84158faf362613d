"""Labelled prompts that train the gate, drawn from the synthesised environments alone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.environments.protocol import Environment, Prompting, Target
from trace_jax.environments.registry import environment_factory
from trace_jax.routing.gate_training import LabelledPrompt, TooFewPrompts
from trace_jax.sandbox.designs import factory_of_design
from trace_jax.sandbox.sandbox import shared_sandbox
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.kinds import Evidence

FIRST_PROMPT_SEED = 2_000_000  # beyond the seeds of calibration and training
Part = Literal["exercised", "routine", "combined"]  # of ``Prompts``
_PAIR_SHARE = 4  # one in so many prompts of an adapter is drawn again together with each other capability


class PromptEnvironment(Prompting, Environment, Protocol):
    """What prompts are drawn from."""


def router_prompts(
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    *,
    target: Target,
    own: Design,
    prompts: int,
    episodes: Sequence[Trajectory] = (),
    sandbox: SandboxSettings,
) -> list[LabelledPrompt]:
    """Prompts with the adapters that each needs, ``prompts`` for each choice; nobody plays them.

    The prompts of the base need no adapter. They come from the target's own practice for the ``candidates`` that have
    no adapter, and from routine episodes of the environments. Further prompts need two capabilities, and so both
    adapters, or the one that there is. ``own`` says how the target is built, and ``episodes`` are those of the
    analysis, which tell practice for candidates. Environments that a model wrote run in ``sandbox``. Raises
    TooFewPrompts for an environment that shows none.
    """
    with ExitStack() as stack:
        trained = {manifest.capability: _environment(manifest, own, sandbox, stack) for manifest in manifests}
        adapter_of = {m.capability: (adapter.name,) for m, adapter in zip(manifests, adapters, strict=True)}
        spare = dict(_spare(candidates, trained, target, own, episodes))

        alone: list[tuple[PromptEnvironment, Part]] = [(environment, "exercised") for environment in spare.values()]
        alone += [(e, "routine") for e in trained.values() if e.prompts(FIRST_PROMPT_SEED).routine]
        wanted = [_Wanted(environment, part, (), -(-prompts // len(alone))) for environment, part in alone]
        for name, environment in trained.items():
            wanted.append(_Wanted(environment, "exercised", adapter_of[name], prompts))
            for other, combined_with in (trained | spare).items():
                if other != name and environment.prompts(FIRST_PROMPT_SEED, combined_with).combined:
                    needed = adapter_of[name] + adapter_of.get(other, ())
                    wanted.append(_Wanted(environment, "combined", needed, prompts // _PAIR_SHARE, combined_with))
        return [prompt for each in wanted for prompt in each.draw()]


@dataclass(frozen=True)
class _Wanted:
    """``number`` prompts of an environment: the part of its ``Prompts`` to take, and the adapters that they need."""

    environment: PromptEnvironment
    part: Part
    adapters: tuple[str, ...]
    number: int
    combined_with: PromptEnvironment | None = None

    def draw(self) -> Iterator[LabelledPrompt]:
        for seed in range(FIRST_PROMPT_SEED, FIRST_PROMPT_SEED + self.number):
            messages: tuple[Message, ...] = getattr(self.environment.prompts(seed, self.combined_with), self.part)
            if messages:
                yield LabelledPrompt(messages, self.environment.tools, self.adapters)


def _spare(
    candidates: Sequence[Candidate],
    trained: Mapping[str, PromptEnvironment],
    target: Target,
    own: Design,
    episodes: Sequence[Trajectory],
) -> Iterator[tuple[str, PromptEnvironment]]:
    """Environments for the candidates that have none yet, where the target brings practice for them.

    One that cannot be combined with each of the trained ones is left out: it may need the same as one of them.
    """
    for candidate in candidates:
        if candidate.name in trained:
            continue
        practice = make_brief(candidate, own, target, Evidence(episodes, frozenset(candidate.examples))).practice
        if practice is None:
            continue  # nothing to draw prompts from, as for distractors
        environment = environment_factory(practice.first, own)()
        if isinstance(environment, Prompting) and all(
            each.prompts(FIRST_PROMPT_SEED, environment).combined for each in trained.values()
        ):
            yield candidate.name, environment


def _environment(
    manifest: EnvironmentManifest, own: Design, sandbox: SandboxSettings, stack: ExitStack
) -> PromptEnvironment:
    environment = stack.enter_context(factory_of_design(manifest.design, own, lambda: shared_sandbox(sandbox)))()
    if not isinstance(environment, Prompting):
        raise TooFewPrompts(f"environment {manifest.name} has no prompts(seed, combined_with)")
    return environment
