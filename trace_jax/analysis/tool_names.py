"""What the name and the description of a tool say: its words, and whether it reads or writes."""

import re
from functools import lru_cache
from typing import Literal

Kind = Literal["read", "write", "handoff", "scratch"]

_SERVER = re.compile(r"^mcp__.+?__")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_READ = frozenset(
    "get list search find lookup look check read view show fetch query retrieve browse describe count inspect "
    "verify validate preview".split()
)
# Verbs that are seldom nouns, so that they say what a tool does wherever they stand: "events_list" is the exception.
_WRITE = frozenset(
    "create add insert update set edit modify change move rename delete remove cancel refund send resend submit "
    "reserve pay close open unlock lock assign apply approve reject enable disable upload write exchange return "
    "toggle start stop restart reset issue post put patch make buy sell".split()
)
_SCRATCH = frozenset({"calculate", "think", "compute", "note", "plan"})
_PEOPLE = frozenset("human humans agent agents operator person staff supervisor representative specialist".split())
# The first word of a description, such as "Returns the events of a day.".
_READING = re.compile(
    r"\s*(?:returns?|lists?|gets?|finds?|search(?:es)?|looks? up|shows?|reads?|fetch(?:es)?|retrieves?|quer(?:y|ies)|"
    r"checks?|views?|displays?|describes?|tells?|whether)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def name_words(tool: str) -> tuple[str, ...]:
    """The words of a tool's name in lower case: split at ``.``, ``_``, ``-`` and camel case, without the MCP server.

    >>> name_words("mcp__bank__transferMoney")
    ('transfer', 'money')
    """
    return tuple(word.lower() for word in _WORD.findall(_SERVER.sub("", tool)))


def plain_name(tool: str) -> str:
    """A tool's name in snake case, without the MCP server; "tool" where it has no letter."""
    return "_".join(name_words(tool)) or "tool"


def kind_of(tool: str, description: str = "") -> Kind:
    """Whether a tool reads, writes, hands over to a human, or notes a thought.

    The first verb of the name decides. A name without a known verb is a write, unless the description says otherwise.
    """
    return named_kind(tool) or ("read" if _READING.match(description) else "write")


@lru_cache(maxsize=4096)
def named_kind(tool: str) -> Kind | None:
    """What the name alone says; None where it has no verb that is known."""
    words = name_words(tool)
    if not words:
        return None
    if {"escalate", "handoff"} & set(words) or ("transfer" in words and _PEOPLE & set(words)):
        return "handoff"
    if words[0] in _SCRATCH:
        return "scratch"
    for word in (words[0], *words[1:]):
        if word in _READ:
            return "write" if word == "check" and "in" in words else "read"
        if word in _WRITE:
            return "write"
    return None
