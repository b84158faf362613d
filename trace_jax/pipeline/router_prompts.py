"""Labelled prompts that train the gate, drawn from the synthesised environments alone."""

from collections.abc import Iterator, Sequence

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.environments.protocol import Target
from trace_jax.environments.registry import environment_factory
from trace_jax.routing.gate_training import LabelledPrompt
from trace_jax.synthesis.designer import Designer, DesignError, make_brief

FIRST_PROMPT_SEED = 2_000_000  # beyond the seeds of calibration and training
_PAIR_SHARE = 4  # of the prompts of an adapter, one in so many is asked for again with each other capability beside it


def router_prompts(
    manifests: Sequence[EnvironmentManifest],
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    designer: Designer,
    target: Target,
    prompts: int,
) -> list[LabelledPrompt]:
    """Prompts with the adapters that each needs, ``prompts`` for each choice; nobody plays them.

    The base's prompts come from designs for the ``candidates`` that have no adapter, and from wholly routine tickets
    of the environments: both need no adapter. More prompts ask for two capabilities. These need both adapters, or the
    one that there is.
    """
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
