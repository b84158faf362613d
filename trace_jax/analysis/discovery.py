"""From findings to candidates: which detectors, checks and patterns are worth labelling with.

1. Detectors of the library that go with failure are taken: they are skills known beforehand.
2. Checks of the grader that are causes (``causes``) are taken where they explain failures that no detector does.
3. Patterns of behaviour are taken if they go with failure better than the best of all patterns does by chance, and
   explain failures that nothing before does.
4. Other detectors that found something fill up the dictionary, so that the report says why they are not selected.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from trace_jax.analysis.apart import goes_with
from trace_jax.analysis.association import Flags, Table, scores
from trace_jax.analysis.causes import MIN_SUPPORT, Reasons, choose_checks, vague
from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.division import UNEXPLAINED, Division
from trace_jax.analysis.patterns.checks import full_name
from trace_jax.analysis.patterns.names import CHECK, is_check
from trace_jax.contract.trajectory import Check

Findings = Mapping[str, tuple[Finding, ...]]  # of an episode, by name

SURE = 0.5  # strength from which discovery believes a finding
_MIN_FAILURES = 2  # failed episodes that must lack a skill of the library before it is proposed
_MOST_TURNS = 31
_SKILL_SCORE, _SKILL_DELTA = 3.0, 0.2


def tabulate(tables: Sequence[Findings], names: Sequence[str], failed_N: Flags) -> Table:
    """The findings as arrays. An episode lacks what some sure finding says that it lacks."""
    column = {name: number for number, name in enumerate(names)}
    needed_NP = np.zeros((len(tables), len(names)), dtype=bool)
    turns_NP = np.zeros(needed_NP.shape, dtype=np.int32)
    for row, table in enumerate(tables):
        for name, findings in table.items():
            number = column.get(name)
            if number is not None and findings:
                needed_NP[row, number] = True
                turns_NP[row, number] = _turns(findings)
    return Table(tuple(names), needed_NP, turns_NP != 0, turns_NP, failed_N)


def _turns(findings: Sequence[Finding]) -> int:
    """A bit for each turn in which something is surely lacking; -1, all bits, if some turn is not known."""
    bits = 0
    for found in findings:
        if not found.shown and found.strength >= SURE:
            if found.turn is None or found.turn >= _MOST_TURNS:
                return -1
            bits |= 1 << found.turn
    return bits


def asked_or_not(words: Table) -> Table:
    """The same words, needed everywhere: an episode in which a word is not said tells as much as one in which it is."""
    return Table(words.names, np.ones_like(words.needed_NP), words.lacking_NP, words.turns_NP, words.failed_N)


def discover(
    skills: Table,
    patterns: Table,
    words: Table,
    checks: Sequence[Sequence[Check]],
    cut_off_N: Flags,
    tasks: Sequence[str],
) -> tuple[list[str], Reasons]:
    """Names of the candidates, most useful first, and why single checks are left out.

    ``skills``: the detectors of the library; ``patterns``: checks and behaviour that were found in the sample;
    ``words``: those of the users' requests. ``checks`` and ``cut_off_N`` as in ``choose_checks``.
    """
    failed_N = skills.failed_N
    proposed = [n for n, support in zip(skills.names, skills.support_P, strict=True) if support >= _MIN_FAILURES]
    if failed_N.all() or not failed_N.any():
        return _by_delta(skills, proposed), {}
    chosen = _strong(skills, max(MIN_SUPPORT, UNEXPLAINED * failed_N.sum()))
    known_N = _union(skills, chosen)
    check_P = np.array([is_check(name) for name in patterns.names], dtype=bool)
    behaviour, graded = patterns.only(~check_P), patterns.only(check_P)
    accepted = list(goes_with(behaviour, np.zeros_like(failed_N), tasks))
    kept, sums, reasons = choose_checks(graded, checks, cut_off_N, behaviour.named(accepted))
    lapses = skills.beside(behaviour).beside(words)
    unclear = frozenset(name for name in sums + kept if vague(graded, checks, name))
    division = Division(graded, lapses, chosen, tasks, reasons, unclear)
    division.unite(sums + kept)
    division.divide(kept)
    explained_N = np.any([known_N, *division.causes.values()], axis=0)
    chosen += division.causes
    chosen += goes_with(behaviour, explained_N, tasks)
    singles = {full_name(check.name) for own in checks for check in own}
    left_out = {name.removeprefix(CHECK): why for name, why in sorted(reasons.items()) if name in singles}
    return chosen + [name for name in _by_delta(skills, proposed) if name not in chosen], left_out


def _strong(skills: Table, least: float) -> list[str]:
    """The skills that will hardly fail to be selected."""
    score_P = scores(skills, skills.failed_N[None].astype(float))[0]
    strong_P = (score_P >= _SKILL_SCORE) & (skills.delta_P >= _SKILL_DELTA) & (skills.support_P >= least)
    return _by_delta(skills, [name for name, strong in zip(skills.names, strong_P, strict=True) if strong])


def _union(table: Table, names: Sequence[str]) -> Flags:
    found: Flags = table.named(names).hits_NP.any(axis=1)
    return found


def _by_delta(skills: Table, names: Sequence[str]) -> list[str]:
    delta = dict(zip(skills.names, skills.delta_P, strict=True))
    return sorted(names, key=lambda name: (-delta[name], name))
