"""Labelled prompts that train the gate, drawn from the synthesised environments alone."""

from collections.abc import Iterator, Sequence

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.environments.protocol import Practice, Practised, Target
from trace_jax.environments.registry import environment_factory
from trace_jax.routing.gate_training import LabelledPrompt
from trace_jax.synthesis.designer import Designer, DesignError, make_brief

FIRST_PROMPT_SEED = 2_000_000  # beyond the seeds of calibration and training
_PAIR_SHARE = 4  # one in so many prompts of an adapter is drawn again together with each other capability


def router_prompts(
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    designer: Designer,
    target: Target,
    prompts: int,
) -> list[LabelledPrompt]:
    """Prompts with the adapters that each needs, ``prompts`` for each choice; nobody plays them.

    The prompts of the base need no adapter. They come from practice for the ``candidates`` that have no adapter, and
    from routine episodes of the environments. Further prompts need two capabilities, and so both adapters, or the one
    that there is.
    """
    spare = {name: design for name, design in _spare_designs(candidates, manifests, designer, target)}
    practice = {name: _practice(target, name) for name in (*spare, *(manifest.capability for manifest in manifests))}
    alone = [_exercised(practice[name], design) for name, design in spare.items()]
    for manifest in manifests:
        of_manifest = practice[manifest.capability]
        if of_manifest is not None and (routine := of_manifest.routine(manifest.design)) is not None:
            alone.append(routine)
    adapter_of = {m.capability: (adapter.name,) for m, adapter in zip(manifests, adapters, strict=True)}
    others = [*adapter_of, *spare]
    wanted: list[tuple[Design, tuple[str, ...], int]] = [(design, (), -(-prompts // len(alone))) for design in alone]
    for manifest in manifests:
        needed = adapter_of[manifest.capability]
        of_manifest = practice[manifest.capability]
        wanted.append((_exercised(of_manifest, manifest.design), needed, prompts))
        for other in others:
            if of_manifest is None or other == manifest.capability:
                continue
            if (pair := of_manifest.combined(manifest.design, other)) is not None:
                wanted.append((pair, needed + adapter_of.get(other, ()), prompts // _PAIR_SHARE))
    return [_prompt(design, needed, FIRST_PROMPT_SEED + i) for design, needed, number in wanted for i in range(number)]


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
