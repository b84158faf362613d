"""Evidence that a model gives is looked up: the episode, the message and the quote have to exist."""

import re
from collections.abc import Iterator, Sequence

from trace_jax.analysis.llm.forms import FEWEST_EXAMPLES, Proposal, Quote
from trace_jax.analysis.llm.pages import Episodes
from trace_jax.analysis.page_lines import spelled
from trace_jax.contract.trajectory import Message

_FEWEST_WORDS, _FEWEST_CHARACTERS = 3, 10  # of a quote, unless it is the whole message
_SHOWN = 5  # labels that a fault spells out


def proposal_faults(proposal: Proposal, episodes: Episodes) -> Iterator[str]:
    """What is wrong with the evidence of one proposal, one sentence each."""
    for quote in proposal.evidence:
        fault = quote_fault(quote, episodes)
        if fault:
            yield f"{proposal.name}: {fault}"
    named = {quote.episode for quote in proposal.evidence}
    if len(named) < FEWEST_EXAMPLES:
        yield (
            f"{proposal.name}: its evidence is from {len(named)} episode: give {FEWEST_EXAMPLES} at least, or leave "
            "the capability out"
        )


def quote_fault(quote: Quote, episodes: Episodes) -> str:
    """Why a quote is no evidence; empty if it is."""
    episode = episodes.get(quote.episode)
    if episode is None:
        known: Sequence[str] = tuple(episodes)
        more = ", …" if len(known) > _SHOWN else ""
        return f"there is no episode {quote.episode[:20]!r}: known are {', '.join(known[:_SHOWN])}{more}"
    if quote.message >= len(episode.messages):
        return f"{quote.episode} has no message [{quote.message}]: its last is [{len(episode.messages) - 1}]"
    said, quoted = _words_of(episode.messages[quote.message]), _words(quote.quote)
    short = len(quoted) < _FEWEST_WORDS and len("".join(quoted)) < _FEWEST_CHARACTERS
    if short and (quoted != said or not quoted):
        return f"the quote {quote.quote[:60]!r} is too short: copy at least {_FEWEST_WORDS} words"
    if " ".join(quoted) not in " ".join(said):
        return f"message [{quote.message}] of {quote.episode} does not contain {quote.quote[:120]!r}"
    return ""


def _words_of(message: Message) -> list[str]:
    """The words of a message and of its calls, without punctuation: that is what quotes are compared by."""
    calls = [f"{spelled(call)} {call.raw_arguments or ''}" for call in message.tool_calls]
    return _words(" ".join([message.content or "", *calls]))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
