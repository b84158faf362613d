"""Joint patterns: a lapse of behaviour, or a kind of request, together with the checks that fail by it.

``compare_options__failing__meet_check_meetings`` is LACKING where the first option was taken *and* a check of meetings
failed. A check that sums up several causes is taken apart in this way, and a lapse that did no harm does not count.
"""

import re
from collections.abc import Mapping, Sequence

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.values import words

ASKED = "asked_"
_SEPARATOR = "__failing__"
_SHORTEST = 3  # letters of a word that may tell a kind of request

Findings = Mapping[str, tuple[Finding, ...]]


def joint_name(lapse: str, check: str) -> str:
    """The name of the joint pattern."""
    return f"{lapse}{_SEPARATOR}{check}"


def is_word(name: str) -> bool:
    """True if ``name`` is a word that users say."""
    return name.startswith(ASKED) and _SEPARATOR not in name


def parts_of(name: str) -> tuple[str, str] | None:
    """The lapse and the check of a joint pattern; None for any other name."""
    lapse, separator, check = name.partition(_SEPARATOR)
    return (lapse, check) if separator else None


def findings_of(name: str, table: Findings) -> tuple[Finding, ...]:
    """The findings of an episode for any candidate: those in its ``table``, or put together from two of them."""
    joint = parts_of(name)
    if joint is None:
        return table.get(name, ())
    lapses, checks = table.get(joint[0], ()), table.get(joint[1], ())
    lapsed = [found for found in lapses if not found.shown]
    failed = [found for found in checks if not found.shown]
    both = [(first, second) for first in lapsed for second in failed if _same_turn(first.turn, second.turn)]
    if both:
        first, second = max(both, key=lambda pair: pair[0].strength)
        return (lacking(first.strength, f"{first.evidence}; {second.evidence}"),)
    return (present(1.0, "no harm was done"),) if lapses else ()


def _same_turn(first: int | None, second: int | None) -> bool:
    return first is None or second is None or first == second


def asked(episodes: Sequence[Episode]) -> list[dict[str, tuple[Finding, ...]]]:
    """asked_WORD for the words that tell requests apart: said by users in some episodes and not in most."""
    said: list[dict[str, tuple[Finding, ...]]] = []
    counts: dict[str, int] = {}
    for episode in episodes:
        own: dict[str, tuple[Finding, ...]] = {}
        for turn in episode.turns:
            for word in sorted(set(filter(_tells, words(turn.request)))):
                own[ASKED + word] = (
                    *own.get(ASKED + word, ()),
                    lacking(1.0, f"turn {turn.number}: user said {word!r}"),
                )
        for name in own:
            counts[name] = counts.get(name, 0) + 1
        said.append(own)
    telling = {name for name, count in counts.items() if count >= 5 and count <= 0.6 * len(episodes)}
    return [{name: found for name, found in own.items() if name in telling} for own in said]


def _tells(word: str) -> bool:
    return len(word) >= _SHORTEST and re.fullmatch("[a-z]+", word) is not None
