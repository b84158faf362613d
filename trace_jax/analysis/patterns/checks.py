"""meet_check_NAME, and meet_checks_of_PART: the named checks of the grader, alone and grouped by parts of their names.

By convention a check is named ``kind.aspect`` (``cancel.confirmed``): the kind of request, and what was looked at. So
``meet_checks_of_cancel`` groups all that was checked of cancellations, and ``meet_checks_of_confirmed`` the same aspect
of all kinds of request. Identifiers and numbers in a name (``order_O12.status``, ``step 3``) are left out.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.patterns.names import CHECK, GROUP, slug
from trace_jax.analysis.values import identifiers
from trace_jax.contract.trajectory import Check

_REPLY = re.compile(r"\b(?:reply|turn|request|step) (\d{1,4})\b", re.IGNORECASE)
_VALUE = re.compile(r"'[^']{1,80}'|\"[^\"]{1,80}\"|\d[\d.:,-]*")
_TOKEN = re.compile(r"[a-z0-9]+")
_SEPARATOR = re.compile(r"[./:>]+")


@lru_cache(maxsize=8192)
def parts(name: str) -> tuple[str, ...]:
    """The parts of a check's name, as slugs: at ``.``, ``/`` and ``:``, or at ``_`` where it has none of them."""
    pieces = [piece for piece in _SEPARATOR.split(name) if piece.strip()]
    if len(pieces) == 1:
        first, _, rest = name.strip("_").partition("_")
        pieces = [first, rest] if rest else [name]
    return tuple(filter(None, (_without_numbers(piece) for piece in pieces))) or ("unnamed",)


def _without_numbers(piece: str) -> str:
    return "_".join(word for word in slug(piece).split("_") if not re.search(r"\d", word))


@lru_cache(maxsize=8192)
def full_name(name: str) -> str:
    """The pattern that stands for the checks of exactly this name."""
    return CHECK + "_".join(parts(name))


@lru_cache(maxsize=8192)
def groups(name: str) -> tuple[str, ...]:
    """The patterns of the kind, and of the aspect if there is one, that a check's name tells."""
    found = parts(name)
    return (GROUP + found[0], GROUP + found[-1]) if len(found) > 1 else (GROUP + found[0],)


def failed_checks(episode: Episode, checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """A finding for each pattern that a check of an episode speaks of; what a grader asserts is sure."""
    for check in checks:
        if check.passed:
            found = present(1.0, f"{check.name} passed")
        else:
            turn = turn_of(episode, check.detail)
            where = "" if turn is None else f"turn {turn}: "
            found = lacking(1.0, f"{where}{check.name} failed {check.detail}".strip())
        for pattern in dict.fromkeys((full_name(check.name), *groups(check.name))):
            yield pattern, found


def turn_of(episode: Episode, detail: str) -> int | None:
    """The turn that the detail of a check speaks of; None if it does not tell.

    It is the turn that the detail numbers, else the only one whose changes have an identifier of the detail, else the
    one with most of the values (quoted texts, numbers) that no other turn has.
    """
    numbered = _REPLY.search(detail)
    if numbered and int(numbered.group(1)) < len(episode.turns):
        return int(numbered.group(1))
    if not detail or len(episode.turns) <= 2:
        return None
    changes = [" ".join(f"{call.arguments} {call.result}" for call in turn.writes) for turn in episode.turns]
    named = set(identifiers(detail))
    changed = [turn for turn, text in enumerate(changes) if named & set(identifiers(text))]
    if len(changed) == 1:
        return changed[0]
    said = [_values(f"{turn.request} {turn.reply} {text}") for turn, text in zip(episode.turns, changes, strict=True)]
    counts = Counter(value for values in said for value in values)
    told = {value for value in _values(" ".join(_VALUE.findall(detail))) if counts[value] == 1}
    shares = [len(told & values) for values in said]
    best = max(shares)
    return shares.index(best) if best and shares.count(best) == 1 else None


def _values(text: str) -> set[str]:
    return set(_TOKEN.findall(text.lower()))
