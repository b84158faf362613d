"""Discovery: several samples of episodes, read one by one; what they propose is merged into one dictionary."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trace_jax.analysis.cutting import plain
from trace_jax.analysis.llm.dictionary import Found, bad_names, joined, merge
from trace_jax.analysis.llm.evidence import proposal_faults
from trace_jax.analysis.llm.forms import FEWEST_EXAMPLES, MOST_CAPABILITIES, MOST_EXAMPLES, Proposal, Proposals
from trace_jax.analysis.llm.pages import PACKAGE, Episodes, Pages, labelled
from trace_jax.analysis.llm.requests import ask
from trace_jax.contract.capability import MessageQuote
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.errors import AnswerRefused
from trace_jax.llm.prompts import Prompt, prompt
from trace_jax.llm.structured import StructuredModel

DISCOVER = "discover"  # the stage, and the name of the template
_SHOWN = 3  # faults that a reason spells out

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Discovered:
    """The dictionary, and what became of answers that could not be used (which → why)."""

    capabilities: tuple[Found, ...]
    left_out: Mapping[str, str]


async def discover(model: StructuredModel, samples: Sequence[Sequence[Trajectory]], pages: Pages) -> Discovered:
    """At most ten capabilities. A sample whose answer is refused twice is left out, and named.

    If the merged dictionary is refused twice, proposals of one name are joined, and those of most samples are kept.
    """
    given = [labelled(sample) for sample in samples]
    answers = await asyncio.gather(*(_propose(model, given[n], pages, n) for n in range(len(given))))
    left_out = {f"sample {n + 1}": _why(found) for n, found in enumerate(answers) if isinstance(found, AnswerRefused)}
    proposed = [
        Found(proposal.name, plain(proposal.description), tuple(_quotes(proposal, given[n])))
        for n, found in enumerate(answers)
        if isinstance(found, Proposals)
        for proposal in found.capabilities
    ]
    heard = sum(isinstance(found, Proposals) and bool(found.capabilities) for found in answers)
    if heard <= 1:
        return Discovered(tuple(proposed), left_out)
    try:
        merged = await merge(model, proposed, pages)
    except AnswerRefused as error:
        log.warning("%s; proposals of one name are joined instead", error)
        left_out["merged dictionary"] = f"proposals of one name were joined instead: {_why(error)}"
        merged = joined(proposed)
    return Discovered(merged, {**_lost(proposed, merged), **left_out})


def _lost(proposed: Sequence[Found], merged: Sequence[Found]) -> dict[str, str]:
    """The proposals that the merged dictionary leaves out."""
    kept = {quote for found in merged for quote in found.evidence}
    names = {found.name for found in merged}
    lost = [found.name for found in proposed if found.name not in names and not kept.issuperset(found.evidence)]
    return dict.fromkeys(lost, "no capability of the merged dictionary stands for it")


def _why(error: AnswerRefused) -> str:
    return f"the answer and its repair were refused: {'; '.join(error.faults[:_SHOWN])}"


def discovery_prompt(episodes: Episodes, pages: Pages, scale: float = 1.0) -> Prompt:
    """The request that shows a sample."""
    return prompt(
        PACKAGE,
        DISCOVER,
        most=MOST_CAPABILITIES,
        fewest_examples=FEWEST_EXAMPLES,
        most_examples=MOST_EXAMPLES,
        policy=pages.policy(episodes, scale),
        pages=pages.pages(episodes, scale),
    )


async def _propose(model: StructuredModel, episodes: Episodes, pages: Pages, number: int) -> Proposals | AnswerRefused:
    def faults(answer: Proposals) -> list[str]:
        found = [fault for proposal in answer.capabilities for fault in proposal_faults(proposal, episodes)]
        return [*found, *bad_names([proposal.name for proposal in answer.capabilities], episodes)]

    try:
        return await ask(
            model,
            lambda scale: discovery_prompt(episodes, pages, scale),
            Proposals,
            stage=DISCOVER,
            seed=number,
            check=faults,
        )
    except AnswerRefused as error:
        log.warning("%s; sample %d is left out", error, number + 1)
        return error


def _quotes(proposal: Proposal, episodes: Episodes) -> Iterator[MessageQuote]:
    for quote in proposal.evidence:
        yield MessageQuote(trajectory=episodes[quote.episode].id, message=quote.message, quote=plain(quote.quote))
