"""Which kinds of a target's requests exercise a capability, and which are routine: by name, else by evidence.

The rule:

1. A capability that has the name of a kind, in snake_case, is exercised by that kind.
2. Otherwise the failed episodes that lack the capability tell. A kind counts if it failed in a larger share of them
   than of the other failed episodes. Of these kinds, as few as explain the episodes are taken: first the one that
   failed in most of them, then the one that failed in most of the rest, as long as it explains ``LEAST`` of the
   episodes and two of them.
3. Routine are the other kinds that the base gets wrong no more often than ``ROUTINE``; all others if there are none.

A kind failed in an episode if a check named ``kind.aspect`` did not pass. Where no check is named so, the kinds of a
failed task are taken from the target's ``kinds(task)``, if it has that method.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import PracticeSource

LEAST = 0.1  # share of the episodes that a further kind must explain
ROUTINE = 0.5  # most of a routine kind's requests that the base may get wrong


@dataclass(frozen=True)
class Evidence:
    """Graded episodes of the base on training tasks, and the ids of failed ones in which a capability is lacking."""

    episodes: Sequence[Trajectory] = ()
    lacking: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Seen:
    """The kinds that an episode asked for, and those of them that failed."""

    id: str
    passed: bool
    asked: frozenset[str]
    failed: frozenset[str]


def kinds_for(capability: str, source: PracticeSource, evidence: Evidence) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds that exercise ``capability``, and the routine ones; both empty if no kind does."""
    kinds = source.request_kinds
    seen = _seen(source, evidence.episodes)
    chosen = tuple(kind for kind in kinds if snake_case(kind) == capability) or _telling(kinds, seen, evidence.lacking)
    return (chosen, _routine(kinds, chosen, seen)) if chosen else ((), ())


def snake_case(kind: str) -> str:
    """The name of a kind as that of a capability: ``MoveEvent`` and ``move-event`` are ``move_event``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def _telling(kinds: Sequence[str], seen: Sequence[_Seen], lacking: frozenset[str]) -> tuple[str, ...]:
    failed = [episode for episode in seen if not episode.passed]
    inside = [episode.failed for episode in failed if episode.id in lacking]
    outside = [episode.failed for episode in failed if episode.id not in lacking]
    telling = [kind for kind in kinds if _share(kind, inside) > _share(kind, outside)]
    chosen: list[str] = []
    unexplained = inside
    while unexplained and telling:
        best = max(telling, key=lambda kind: _share(kind, unexplained))
        explained = [kinds for kinds in unexplained if best in kinds]
        if len(explained) < max(LEAST * len(inside), 2):
            break
        chosen.append(best)
        telling.remove(best)
        unexplained = [kinds for kinds in unexplained if best not in kinds]
    return tuple(chosen)


def _routine(kinds: Sequence[str], chosen: Sequence[str], seen: Sequence[_Seen]) -> tuple[str, ...]:
    others = [kind for kind in kinds if kind not in chosen]
    wrong = {kind: _share(kind, [e.failed for e in seen if kind in e.asked], none=1.0) for kind in others}
    return tuple(kind for kind in others if wrong[kind] <= ROUTINE) or tuple(others)


def _seen(source: PracticeSource, episodes: Sequence[Trajectory]) -> list[_Seen]:
    graded = [episode for episode in episodes if not episode.broken]
    by_checks = [_by_checks(episode, source.request_kinds) for episode in graded]
    if any(seen.asked for seen in by_checks):
        return by_checks
    told = _told(source, graded)
    return [
        _Seen(episode.id, episode.passed, kinds, frozenset() if episode.passed else kinds)
        for episode in graded
        for kinds in [told.get(episode.task, frozenset())]
    ]


def _by_checks(episode: Trajectory, kinds: Sequence[str]) -> _Seen:
    named = [(check.name.partition(".")[0], check.passed) for check in episode.checks]
    asked = frozenset(kind for kind, _ in named if kind in kinds)
    return _Seen(episode.id, episode.passed, asked, frozenset(kind for kind, passed in named if not passed) & asked)


def _told(source: PracticeSource, episodes: Sequence[Trajectory]) -> Mapping[str, frozenset[str]]:
    """What the target says of the tasks of ``episodes``, by their names."""
    tell: Callable[[int | str], Sequence[str]] | None = getattr(source, "kinds", None)
    if tell is None:
        return {}
    wanted = {episode.task for episode in episodes}
    return {str(task): frozenset(tell(task)) for task in source.tasks("train") if str(task) in wanted}


def _share(kind: str, failures: Sequence[frozenset[str]], none: float = 0.0) -> float:
    return sum(kind in failed for failed in failures) / len(failures) if failures else none
