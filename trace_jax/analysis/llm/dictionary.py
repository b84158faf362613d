"""The dictionary: capabilities that rest on messages, merged from what several samples proposed, and distractors."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trace_jax.analysis.cutting import plain
from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.llm.forms import MOST_CAPABILITIES, MOST_EXAMPLES, Dictionary, MergedCapability
from trace_jax.analysis.llm.pages import PACKAGE, Episodes, Pages
from trace_jax.contract.capability import Candidate, MessageQuote
from trace_jax.llm.prompts import Prompt, prompt
from trace_jax.llm.structured import StructuredModel

MERGE = "merge"  # the stage, and the name of the template
DISTRACTOR_NAMES = ("polite_tone", "concise_replies")
KNOWN = tuple(
    Candidate(name=found.name, description=found.description) for found in DISTRACTORS if found.name in DISTRACTOR_NAMES
)

_FEWEST_MERGED = 2 * MOST_CAPABILITIES  # proposals of one request: it halves them at least


@dataclass(frozen=True)
class Found:
    """A capability with the messages that it rests on."""

    name: str
    description: str
    evidence: tuple[MessageQuote, ...]

    def candidate(self) -> Candidate:
        """As it stands in the dictionary; its examples are the episodes of its evidence."""
        named = dict.fromkeys(quote.trajectory for quote in self.evidence)
        return Candidate(name=self.name, description=self.description, examples=tuple(named)[:MOST_EXAMPLES])


async def merge(model: StructuredModel, proposed: Sequence[Found], pages: Pages) -> tuple[Found, ...]:
    """At most ten capabilities. More proposals than one prompt holds are merged in groups first.

    Raises AnswerRefused.
    """
    while True:
        groups = _groups(proposed, pages)
        merged = await asyncio.gather(*(_merge(model, group) for group in groups))
        if len(groups) == 1:
            return merged[0]
        proposed = [found for part in merged for found in part]


def joined(proposed: Sequence[Found]) -> tuple[Found, ...]:
    """Proposals of one name made one, and of these the ten that were proposed most often."""
    by_name: dict[str, list[Found]] = {}
    for found in proposed:
        by_name.setdefault(found.name, []).append(found)
    ranked = sorted(by_name.values(), key=len, reverse=True)[:MOST_CAPABILITIES]
    return tuple(Found(same[0].name, same[0].description, _by_turns(same)) for same in ranked)


def merge_prompt(proposed: Sequence[Found]) -> Prompt:
    """The request that makes one dictionary of all proposals, which it calls A1, A2 and so on."""
    texts = [_text(label, found) for label, found in _sources(proposed).items()]
    return prompt(PACKAGE, MERGE, most=MOST_CAPABILITIES, taken=list(DISTRACTOR_NAMES), proposals=texts)


def bad_names(names: Sequence[str], episodes: Episodes) -> Iterator[str]:
    """Names given twice, taken, or taken from a tool: such a capability is a procedure of the domain."""
    tools = {tool.name for episode in episodes.values() for tool in episode.tools}
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name}: two capabilities have this name"
        if name in DISTRACTOR_NAMES:
            yield f"{name}: this name is taken: describe another skill"
        if name in tools:
            yield f"{name}: this is a tool of the domain: describe a general skill"


async def _merge(model: StructuredModel, proposed: Sequence[Found]) -> tuple[Found, ...]:
    sources = _sources(proposed)

    def faults(answer: Dictionary) -> list[str]:
        named = [label for capability in answer.capabilities for label in capability.sources]
        unknown = [f"there is no proposal {label[:20]!r}" for label in dict.fromkeys(named) if label not in sources]
        twice = [
            f"proposal {label} belongs to two capabilities: keep it in one"
            for label in dict.fromkeys(named)
            if label in sources and named.count(label) > 1
        ]
        return [*unknown, *twice, *bad_names([capability.name for capability in answer.capabilities], {})]

    answer = await model.ask(merge_prompt(proposed), Dictionary, stage=MERGE, seed=0, check=faults)
    return tuple(_with_evidence(capability, sources) for capability in answer.capabilities)


def _groups(proposed: Sequence[Found], pages: Pages) -> list[Sequence[Found]]:
    """The proposals in groups of equal size that fit into a prompt."""
    longest = max(pages.count(_text("A999", found)) for found in proposed)
    size = max(_FEWEST_MERGED, pages.prompt_tokens // (2 * longest))  # half is for instructions and delimiters
    return [proposed[start : start + size] for start in range(0, len(proposed), size)]


def _sources(proposed: Sequence[Found]) -> dict[str, Found]:
    return {f"A{number}": found for number, found in enumerate(proposed, start=1)}


def _text(label: str, found: Found) -> str:
    episodes = {quote.trajectory for quote in found.evidence}
    return f"{label}: {found.name}\n{found.description}\nepisodes: {len(episodes)}"


def _with_evidence(capability: MergedCapability, sources: Mapping[str, Found]) -> Found:
    """Evidence of all its sources, the first message of each before the second of any."""
    return Found(
        capability.name, plain(capability.description), _by_turns([sources[name] for name in capability.sources])
    )


def _by_turns(found: Sequence[Found]) -> tuple[MessageQuote, ...]:
    longest = max(len(each.evidence) for each in found)
    quotes = [each.evidence[turn] for turn in range(longest) for each in found if turn < len(each.evidence)]
    return tuple(dict.fromkeys(quotes))
