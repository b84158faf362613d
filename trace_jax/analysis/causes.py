"""The choice among failed checks: causes, not symptoms.

A check of the grader fails in failed episodes and hardly ever in passed ones: the reward is made of checks. So Δ is
close to 1 for every check and says nothing about which of them is worth training for. What can tell them apart is how
their failures lie to one another:

- *Restates the reward.* The check fails wherever the episode fails ("all", "task.complete"), and when it does no two
  other checks of the episode pass. It explains everything and therefore nothing.
- *Vague.* The check is made in most episodes, and the grader checks hardly anything else there ("database"). It says
  that something went wrong and not what. It is no candidate itself, but may be one together with a lapse of behaviour.
- *Explained by narrower ones.* Most failures of the check are failures of checks that are narrower and fail hardly
  anywhere else: it sums up several causes. The narrower ones are taken.
- *Cut off.* The check fails where the episode ended without the agent's last word: that is what running out of turns
  does to every grade.
- *Says the same.* Two checks fail together: one of them stands for both, the one with the more specific name.
- *Soft.* The check fails in passed episodes about as often: it is no part of the reward, and no cause either.

An aspect that several kinds of request share (``book.confirmed``, ``delete.confirmed``) is one skill if failures of
each kind go with the same lapse of behaviour, or if the aspect names an act of the agent and not a field of the state;
otherwise every kind stays on its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.analysis.association import Flags, Table
from trace_jax.analysis.patterns.checks import full_name, groups, parts
from trace_jax.analysis.patterns.names import CHECK, GROUP, short
from trace_jax.contract.trajectory import Check

MIN_SUPPORT = 5
SAME, INSIDE, NARROWER, EXPLAINED = 0.8, 0.9, 0.7, 0.6
_RESTATES = 0.9
_MOST = 0.5  # share of the episodes from which a check is one that is made in most
_SHARED = 0.5  # difference of LACKING rates from which a behaviour goes with the failures of a check
_PRECISE = 0.8  # attributable share from which a pattern is taken for a cause
_GENERIC = frozenset(
    "all any answered complete completed correct done end ended episode everything final finished goal ok outcome "
    "overall pass passed result reward score solved success succeeded task ticket total".split()
)
_ACTS = re.compile(
    r"confirm|verif|check|ask|refus|declin|allow|permit|authent|author|consent|explain|convert|compar|valid|polic|complete"
)
Reasons = dict[str, str]


@dataclass(frozen=True)
class _Sets:
    """The checks that are still in the running: name → failed episodes."""

    table: Table
    column: dict[str, int]

    def hits(self, name: str) -> Flags:
        found: Flags = self.table.hits_NP[:, self.column[name]]
        return found

    def size(self, name: str) -> int:
        return int(self.table.support_P[self.column[name]])

    def overlap(self, first: str, second: str) -> int:
        return int((self.hits(first) & self.hits(second)).sum())

    def same(self, first: str, second: str) -> bool:
        both = self.overlap(first, second)
        return both >= SAME * (self.size(first) + self.size(second) - both)

    def inside(self, narrow: str, broad: str) -> bool:
        smaller = self.size(narrow) <= NARROWER * self.size(broad)
        return smaller and self.overlap(narrow, broad) >= INSIDE * self.size(narrow)


def choose_checks(
    table: Table, checks: Sequence[Sequence[Check]], cut_off_N: Flags, behaviours: Table
) -> tuple[list[str], list[str], Reasons]:
    """The patterns of checks in ``table`` that are causes, those that sum up causes, and why others are left out.

    ``checks``: those of each episode; ``cut_off_N``: episodes that ended without the agent's last word; ``behaviours``:
    patterns of behaviour that go with failure.
    """
    single = {full_name(check.name) for own in checks for check in own}
    sets = _Sets(table, {name: column for column, name in enumerate(table.names)})
    reasons: Reasons = {}
    running: list[str] = []
    for name in table.names:
        reason = _fault(sets, name, checks, cut_off_N)
        if reason:
            reasons[name] = reason
        else:
            running.append(name)
    running = _distinct(sets, running, single, reasons)
    united = _united(sets, running, checks, behaviours, reasons)
    running = [name for name in running if name not in reasons]
    sums = []
    for name in sorted(running, key=lambda name: (-sets.size(name), name)):
        narrower = [other for other in running if other not in reasons and sets.inside(other, name)]
        if name not in united and _explained(sets, name, narrower):
            sums.append(name)
            reasons[name] = f"sums up {', '.join(short(other) for other in narrower)}"
    failing = {name: why for name, why in reasons.items() if sets.size(name)}
    return [name for name in running if name not in reasons], sums, failing


def _fault(sets: _Sets, name: str, checks: Sequence[Sequence[Check]], cut_off_N: Flags) -> str:
    """Why the check alone is no candidate; empty if it may be one."""
    column, hits_N, failed_N = sets.column[name], sets.hits(name), sets.table.failed_N
    size = sets.size(name)
    if size < MIN_SUPPORT:
        return f"failed in {size} failed episodes; {MIN_SUPPORT} are needed"
    if sets.table.attributable_P[column] < _PRECISE:
        return "fails in passed episodes about as often: no part of the reward"
    if (hits_N & cut_off_N).sum() >= SAME * size and cut_off_N[failed_N].mean() < NARROWER:
        return "fails where the episode ended without the agent's last word"
    if size >= _RESTATES * failed_N.sum() and (_generic(name) or _others_passed(name, checks, hits_N) < 2):
        return "restates the reward: it fails in nearly all failed episodes, and no two others pass there"
    return ""


def _generic(name: str) -> bool:
    """True if the name says no more than that something went well."""
    return set(name.removeprefix(CHECK).removeprefix(GROUP).split("_")) <= _GENERIC


def vague(table: Table, checks: Sequence[Sequence[Check]], name: str) -> bool:
    """True if the check says that something went wrong and not what."""
    needed_N = table.needed_NP[:, table.names.index(name)]
    return bool(needed_N.mean() >= _MOST) and _others_passed(name, checks, table.hits(name)) < 2


def _others_passed(name: str, checks: Sequence[Sequence[Check]], hits_N: Flags) -> float:
    """Median number of other names of checks that passed in the episodes where ``name`` failed."""
    counts = []
    for row in map(int, np.flatnonzero(hits_N)):
        failed = {full_name(check.name) for check in checks[row] if not check.passed}
        passed = {full_name(check.name) for check in checks[row]} - failed
        counts.append(len(passed - {name}))
    return float(np.median(counts))


def _distinct(sets: _Sets, names: Sequence[str], single: set[str], reasons: Reasons) -> list[str]:
    """One name for each set of failures: a specific one, needed by few episodes, of a single check."""

    def preference(name: str) -> tuple[bool, int, bool, int, str]:
        needed = int(sets.table.needed_NP[:, sets.column[name]].sum())
        return _generic(name), needed, name not in single, len(name), name

    kept: list[str] = []
    for name in sorted(names, key=preference):
        twin = next((other for other in kept if sets.same(name, other)), None)
        if twin is None:
            kept.append(name)
        else:
            reasons[name] = f"fails together with {short(twin)}"
    return kept


def _united(
    sets: _Sets, running: Sequence[str], checks: Sequence[Sequence[Check]], behaviours: Table, reasons: Reasons
) -> set[str]:
    """Aspects that are one skill in every kind of request. Their members are noted in ``reasons`` and fall away."""
    members: dict[str, set[str]] = {}
    for check_name in {check.name for own in checks for check in own}:
        if len(parts(check_name)) > 1:
            members.setdefault(groups(check_name)[-1], set()).add(full_name(check_name))
    united = set()
    for aspect, names in members.items():
        found = [name for name in running if name in names and name != aspect]
        if aspect not in running or len(found) < 2:
            continue
        if _ACTS.search(aspect.removeprefix(GROUP)) or _goes_with_one_behaviour(sets, found, behaviours):
            united.add(aspect)
            reasons.update({name: f"part of {short(aspect)}, the same skill in other requests" for name in found})
    return united


def _goes_with_one_behaviour(sets: _Sets, names: Sequence[str], behaviours: Table) -> bool:
    """True if some behaviour is lacking where any of the checks fails, and not where it is met."""
    shared = np.ones(len(behaviours.names), dtype=bool)
    for name in names:
        hits_N = sets.hits(name)
        met_N = sets.table.needed_NP[:, sets.column[name]] & ~hits_N
        lacked_P = _mean(behaviours.lacking_NP, hits_N) - _mean(behaviours.lacking_NP, met_N)
        shared &= lacked_P >= _SHARED
    return bool(shared.any())


def _mean(flags_NP: Flags, among_N: Flags) -> np.ndarray:
    return flags_NP[among_N].mean(axis=0) if among_N.any() else np.zeros(flags_NP.shape[1])


def _explained(sets: _Sets, name: str, narrower: Sequence[str]) -> bool:
    """True if two or more narrower causes make up most of the failures of ``name``."""
    covered_N = np.zeros_like(sets.hits(name))
    for other in narrower:
        covered_N |= sets.hits(other)
    return len(narrower) >= 2 and bool((covered_N & sets.hits(name)).sum() >= EXPLAINED * sets.size(name))
