"""One labeling: every pair of an episode and a capability, in an order of its own."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.analysis.cutting import cut, plain
from trace_jax.analysis.llm.forms import EpisodeLabels, Labels, labels_of
from trace_jax.analysis.llm.pages import PACKAGE, Episodes, Pages
from trace_jax.analysis.llm.requests import Answered, ask
from trace_jax.analysis.patterns.names import slug
from trace_jax.contract.capability import Candidate, Candidates, Label, LabelRun, PairLabel
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.errors import AnswerRefused
from trace_jax.llm.prompts import Prompt, prompt
from trace_jax.llm.structured import StructuredModel

LABEL = "label"  # the stage, and the name of the template

_LONGEST_EVIDENCE = 200
_SEEDS = 2**31
_NAMED = 8  # pairs that a fault spells out

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labeling:
    """What one run asks: its seed, its dictionary in the order of its prompts, and its requests."""

    run: int
    seed: int
    request_seed: int
    capabilities: tuple[Candidate, ...]
    batches: tuple[dict[str, Trajectory], ...]


def plan_labeling(
    trajectories: Sequence[Trajectory], candidates: Candidates, pages: Pages, *, run: int, seed: int
) -> Labeling:
    """Episodes and dictionary in an order that ``run`` and ``seed`` draw. Without candidates nothing is asked."""
    rng = np.random.default_rng([seed, run])
    episodes = [trajectories[i] for i in rng.permutation(len(trajectories))]
    dictionary = tuple(candidates.all[i] for i in rng.permutation(len(candidates.all)))
    size = pages.count("\n".join(f"- {found.name}: {found.description}" for found in dictionary))
    batches = tuple(pages.batches(episodes, size)) if dictionary else ()
    return Labeling(run, seed, int(rng.integers(_SEEDS)), dictionary, batches)


async def label(
    model: StructuredModel,
    labeling: Labeling,
    trajectories: Sequence[Trajectory],
    pages: Pages,
    *,
    limit: asyncio.Semaphore,
    answered: Answered,
) -> LabelRun:
    """All labels of a run. Pairs that the model leaves out, doubles or invents stay as they are, for the partition.

    ``limit`` bounds the requests that are prepared at once.
    """

    async def bounded(batch: Episodes) -> list[PairLabel]:
        async with limit:
            labels = await _label_batch(model, labeling, batch, pages)
        answered.add()
        return labels

    found = await asyncio.gather(*(bounded(batch) for batch in labeling.batches))
    order = {trajectory.id: number for number, trajectory in enumerate(trajectories)}
    pairs = [pair for batch in found for pair in batch]
    return LabelRun(
        run=labeling.run,
        seed=labeling.seed,
        analyst="llm",
        trajectories=tuple(order),
        labels=tuple(sorted(pairs, key=lambda pair: (order.get(pair.trajectory, len(order)), pair.capability))),
    )


def label_prompt(
    episodes: Episodes, capabilities: Sequence[Candidate], pages: Pages, scale: float = 1.0, faults: Sequence[str] = ()
) -> Prompt:
    """The request that labels ``episodes``; ``faults`` are those of an earlier answer."""
    return prompt(
        PACKAGE,
        LABEL,
        capabilities=[{"name": found.name, "description": plain(found.description)} for found in capabilities],
        policy=pages.policy(episodes, scale),
        episodes=list(episodes),
        pages=pages.pages(episodes, scale),
        faults=list(faults),
    )


async def _label_batch(model: StructuredModel, labeling: Labeling, batch: Episodes, pages: Pages) -> list[PairLabel]:
    """The labels of one request; episodes whose pairs are not clean are asked for once more."""
    names = tuple(found.name for found in labeling.capabilities)
    rows: Sequence[EpisodeLabels] = ()
    try:
        rows = await _rows(model, labeling, batch, pages)
        faults = dict(pair_faults(rows, tuple(batch), names))
        if faults:
            again = {name: batch[name] for name in batch if name in faults} or batch
            clean = [row for row in rows if row.episode in batch and row.episode not in again]
            rows = [*clean, *await _rows(model, labeling, again, pages, tuple(faults.values()))]
    except AnswerRefused as error:
        log.warning("label run %d: %s", labeling.run, error)
    return list(_pairs(rows, batch))


async def _rows(
    model: StructuredModel, labeling: Labeling, episodes: Episodes, pages: Pages, faults: Sequence[str] = ()
) -> Sequence[EpisodeLabels]:
    names = tuple(found.name for found in labeling.capabilities)
    answer: Labels = await ask(
        model,
        lambda scale: label_prompt(episodes, labeling.capabilities, pages, scale, faults),
        labels_of(tuple(episodes), names),
        stage=LABEL,
        seed=labeling.request_seed,
    )
    return answer.episodes


def pair_faults(
    rows: Sequence[EpisodeLabels], episodes: Sequence[str], capabilities: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Each episode whose labels are not one a capability, with the fault in words."""
    given: dict[str, Counter[str]] = {}
    for row in rows:
        given.setdefault(row.episode, Counter()).update(judgement.capability for judgement in row.labels)
    for name in (*episodes, *(name for name in given if name not in episodes)):
        if name not in episodes:
            yield name, f"{name[:20]!r} is none of these episodes"
            continue
        found = given.get(name, Counter())
        faults = {
            "misses": [capability for capability in capabilities if not found[capability]],
            "labels twice": [capability for capability, count in found.items() if count > 1],
            "labels what is not in the dictionary": [each for each in found if each not in capabilities],
        }
        texts = [f"{what} {', '.join(map(_short, which[:_NAMED]))}" for what, which in faults.items() if which]
        if texts:
            yield name, f"{name} {'; '.join(texts)}"


def _pairs(rows: Sequence[EpisodeLabels], batch: Mapping[str, Trajectory]) -> Iterator[PairLabel]:
    for row in rows:
        episode = batch[row.episode].id if row.episode in batch else _short(row.episode)
        for judgement in row.labels:
            yield PairLabel(
                trajectory=episode,
                capability=_name(judgement.capability),
                label=Label(judgement.label),
                evidence=cut(plain(judgement.evidence), _LONGEST_EVIDENCE),
            )


def _name(given: str) -> str:
    """``given`` as the name of a capability, so that a made-up one can be named in the report."""
    found = slug(_short(given))
    return found if found[:1].isalpha() else f"unknown_{found}"


def _short(text: str) -> str:
    return cut(plain(text), 60)
