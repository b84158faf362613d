"""From findings to candidates: which detectors, checks and patterns are worth labelling with.

1. Detectors of the library that go with failure are taken: they are skills known beforehand.
2. Checks of the grader that are causes (``causes``) are taken where they explain failures that no detector does.
3. Patterns of behaviour are taken if they go with failure better than the best of all patterns does by chance, and
   explain failures that nothing before does.
4. Other detectors that found something fill up the dictionary, so that the report says why they are not selected.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from trace_jax.analysis.association import Flags, Table, chance_bar, scores
from trace_jax.analysis.causes import MIN_SUPPORT, Reasons, choose_checks
from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.patterns.names import GENERAL, is_check, rank
from trace_jax.contract.trajectory import Check

Findings = Mapping[str, tuple[Finding, ...]]  # of an episode, by name

SURE = 0.5  # strength from which discovery believes a finding
_MIN_FAILURES = 2  # failed episodes that must lack a skill of the library before it is proposed
_MIN_OCCASIONS = 5  # episodes that lack a pattern, and that keep to it
_SKILL_SCORE, _SKILL_DELTA = 3.0, 0.2
_UNEXPLAINED = 0.1  # share of all failed episodes that a candidate must explain anew
_PRECISE = 0.5  # attributable share of a pattern that is believed
_LEVEL = 0.025  # chance that a pattern is believed falsely, of general skills and of others


def tabulate(tables: Sequence[Findings], names: Sequence[str], failed_N: Flags, sure: float = SURE) -> Table:
    """The findings as arrays. An episode lacks what some finding of at least the strength ``sure`` says that it lacks."""
    column = {name: number for number, name in enumerate(names)}
    needed_NP = np.zeros((len(tables), len(names)), dtype=bool)
    lacking_NP = np.zeros_like(needed_NP)
    for row, table in enumerate(tables):
        for name, findings in table.items():
            number = column.get(name)
            if number is not None and findings:
                needed_NP[row, number] = True
                lacking_NP[row, number] = any(not found.shown and found.strength >= sure for found in findings)
    return Table(tuple(names), needed_NP, lacking_NP, failed_N)


def discover(
    skills: Table,
    patterns: Table,
    checks: Sequence[Sequence[Check]],
    cut_off_N: Flags,
    tasks: Sequence[str],
) -> tuple[list[str], Reasons]:
    """Names of the candidates, most useful first, and why single checks are left out.

    ``skills``: the detectors of the library; ``patterns``: everything that was found in the sample beside them.
    """
    failed_N = skills.failed_N
    proposed = [n for n, support in zip(skills.names, skills.support_P, strict=True) if support >= _MIN_FAILURES]
    if failed_N.all() or not failed_N.any():
        return _by_delta(skills, proposed), {}
    needed = max(MIN_SUPPORT, _UNEXPLAINED * failed_N.sum())
    score_P = scores(skills, failed_N[None].astype(float))[0]
    strong = (score_P >= _SKILL_SCORE) & (skills.delta_P >= _SKILL_DELTA) & (skills.support_P >= needed)
    chosen = _by_delta(skills, [name for name in proposed if strong[skills.names.index(name)]])
    covered_N = np.zeros_like(failed_N)
    for name in chosen:
        covered_N |= skills.hits_NP[:, skills.names.index(name)]
    behaviours = believed(patterns, np.zeros_like(failed_N), tasks)
    found, reasons = choose_checks(_only_checks(patterns), checks, cut_off_N, behaviours)
    explained_N = covered_N.copy()
    for name in found:
        hits_N = patterns.hits_NP[:, patterns.names.index(name)]
        new = (hits_N & ~covered_N).sum()
        if 2 * new > hits_N.sum() or new >= needed:
            chosen.append(name)
            explained_N |= hits_N
        else:
            reasons[name] = "its failures are explained by skills of the library"
    chosen += believed(patterns, explained_N, tasks).names
    return chosen + [name for name in _by_delta(skills, proposed) if name not in chosen], reasons


def _by_delta(skills: Table, names: Sequence[str]) -> list[str]:
    delta = dict(zip(skills.names, skills.delta_P, strict=True))
    return sorted(names, key=lambda name: (-delta[name], name))


def _only_checks(patterns: Table) -> Table:
    return patterns.only(np.array([is_check(name) for name in patterns.names], dtype=bool))


def believed(patterns: Table, explained_N: Flags, tasks: Sequence[str]) -> Table:
    """Patterns of behaviour that explain failures which are not ``explained_N``, better than chance would.

    One pattern is taken after the other: the best of the episodes that are not yet explained, if it separates failed
    from passed there better than the best of all patterns does by chance.
    """
    behaviour_P = np.array([not is_check(name) for name in patterns.names], dtype=bool)
    taken: list[int] = []
    while True:
        left_N = ~explained_N
        rest = Table(patterns.names, patterns.needed_NP[left_N], patterns.lacking_NP[left_N], patterns.failed_N[left_N])
        kept_P = (rest.needed_NP & ~rest.lacking_NP).sum(axis=0) >= _MIN_OCCASIONS
        kept_P &= (rest.lacking_NP.sum(axis=0) >= _MIN_OCCASIONS) & behaviour_P
        best = _best(rest.only(kept_P), [task for task, left in zip(tasks, left_N, strict=True) if left])
        if best is None:
            return patterns.only(np.array(taken, dtype=np.int64))
        taken.append(patterns.names.index(best))
        explained_N = explained_N | patterns.hits_NP[:, taken[-1]]


def _best(usable: Table, tasks: Sequence[str]) -> str | None:
    """The pattern that separates best, if it is believed. General skills are few, and tested among themselves."""
    general_P = np.array([name in GENERAL for name in usable.names], dtype=bool)
    for family_P in (general_P, ~general_P):
        family = usable.only(family_P & (usable.attributable_P >= _PRECISE))
        if not family.names or usable.failed_N.all() or not usable.failed_N.any():
            continue
        score_P = scores(family, family.failed_N[None].astype(float))[0]
        best = float(score_P.max())
        if best > chance_bar(usable.only(family_P), tasks, _LEVEL, 0):
            return min((name for name, score in zip(family.names, score_P, strict=True) if score >= best), key=rank)
    return None
