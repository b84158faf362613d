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
from trace_jax.analysis.causes import EXPLAINED, INSIDE, MIN_SUPPORT, SAME, Reasons, choose_checks
from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.patterns.checks import full_name
from trace_jax.analysis.patterns.joint import joint_name, parts_of
from trace_jax.analysis.patterns.names import CHECK, GENERAL, GROUP, is_check, short
from trace_jax.contract.trajectory import Check

Findings = Mapping[str, tuple[Finding, ...]]  # of an episode, by name

SURE = 0.5  # strength from which discovery believes a finding
_MIN_FAILURES = 2  # failed episodes that must lack a skill of the library before it is proposed
_MOST_TURNS = 31
_SKILL_SCORE, _SKILL_DELTA = 3.0, 0.2
_UNEXPLAINED = 0.1  # share of all failed episodes that a candidate must explain anew
_LEVEL = 0.025  # chance that a pattern is believed falsely, of general skills and of others


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
    chosen = _strong(skills, max(MIN_SUPPORT, _UNEXPLAINED * failed_N.sum()))
    known_N = _union(skills, chosen)
    check_P = np.array([is_check(name) for name in patterns.names], dtype=bool)
    behaviour, graded = patterns.only(~check_P), patterns.only(check_P)
    accepted = list(goes_with(behaviour, np.zeros_like(failed_N), tasks))
    kept, sums, reasons = choose_checks(graded, checks, cut_off_N, behaviour.named(accepted))
    causes = _uniting(sums + kept, graded, skills.beside(behaviour), known_N, tasks)
    _take_apart(kept, graded, skills.beside(behaviour).beside(words), known_N, tasks, causes, reasons)
    explained_N = np.any([known_N, *causes.values()], axis=0)
    chosen += causes
    chosen += goes_with(behaviour, explained_N, tasks)
    singles = {full_name(check.name) for own in checks for check in own}
    left_out = {name.removeprefix(CHECK): why for name, why in sorted(reasons.items()) if name in singles}
    return chosen + [name for name in _by_delta(skills, proposed) if name not in chosen], left_out


def _strong(skills: Table, least: float) -> list[str]:
    """The skills that will hardly fail to be selected."""
    score_P = scores(skills, skills.failed_N[None].astype(float))[0]
    strong_P = (score_P >= _SKILL_SCORE) & (skills.delta_P >= _SKILL_DELTA) & (skills.support_P >= least)
    return _by_delta(skills, [name for name, strong in zip(skills.names, strong_P, strict=True) if strong])


def _uniting(names: Sequence[str], graded: Table, lapses: Table, known_N: Flags, tasks: Sequence[str]) -> dict[str, Flags]:
    """Joint patterns of a general skill whose lapse explains most failures of two checks or more: name → episodes.

    What they have in common is looked for in the checks that sum them up.
    """
    general = lapses.named([name for name in lapses.names if name in GENERAL or name in DETECTORS])
    size = {name: int(graded.hits(name).sum()) for name in names}
    causes: dict[str, Flags] = {}
    for name in sorted(names, key=lambda name: (-size[name], name)):
        narrow = [c for c in names if size[c] < size[name] and (graded.hits(c) & graded.hits(name)).sum() == size[c]]
        against = general.against(graded, name)
        explained_N = np.any([known_N, *causes.values()], axis=0)
        for lapse in goes_with(against, explained_N, tasks):
            hits_N = against.hits(lapse)
            made = [c for c in narrow if (graded.hits(c) & hits_N).sum() >= EXPLAINED * size[c]]
            if len(made) >= 2:
                causes[joint_name(lapse, name)] = hits_N
    return causes


def _take_apart(
    kept: Sequence[str],
    graded: Table,
    lapses: Table,
    known_N: Flags,
    tasks: Sequence[str],
    causes: dict[str, Flags],
    reasons: Reasons,
) -> None:
    """Add the checks in ``kept`` to ``causes``, each as it is or as joint patterns; note why one is not as it is."""
    least = max(MIN_SUPPORT, _UNEXPLAINED * graded.failed_N.sum())
    for name in sorted(kept, key=lambda name: (name.startswith(GROUP), graded.hits(name).sum(), name)):
        hits_N, against = graded.hits(name), lapses.against(graded, name)
        old_N = hits_N & (known_N | _already(causes, against, hits_N))
        if (hits_N & ~old_N).sum() < min(least, hits_N.sum() / 2):
            reasons[name] = f"its failures are those of {', '.join(map(short, causes)) or 'skills of the library'}"
            continue
        parts = {joint_name(lapse, name): against.hits(lapse) for lapse in goes_with(against, old_N, tasks)}
        together_N = np.any([old_N, *parts.values()], axis=0)
        mixed = old_N.sum() > (1 - SAME) * hits_N.sum()
        whole = any(part.sum() >= SAME * hits_N.sum() for part in parts.values())
        if parts and (mixed or len(parts) >= 2) and not whole and together_N.sum() >= EXPLAINED * hits_N.sum():
            reasons[name] = f"fails for several causes: {', '.join(map(short, parts))}"
            causes |= parts
        elif mixed:
            reasons[name] = "fails for causes that are candidates already, and for others that are not clear"
        else:
            causes[name] = hits_N


def _already(causes: Mapping[str, Flags], against: Table, hits_N: Flags) -> Flags:
    """Episodes in which a check fails by a lapse that is a cause already, or with a narrower check that is one."""
    found_N = np.zeros_like(hits_N)
    for cause, own_N in causes.items():
        joint = parts_of(cause)
        if joint is not None:
            found_N |= against.hits(joint[0])
        elif (own_N & hits_N).sum() >= INSIDE * own_N.sum():
            found_N |= own_N
    return found_N


def _union(table: Table, names: Sequence[str]) -> Flags:
    found: Flags = table.named(names).hits_NP.any(axis=1)
    return found


def _by_delta(skills: Table, names: Sequence[str]) -> list[str]:
    delta = dict(zip(skills.names, skills.delta_P, strict=True))
    return sorted(names, key=lambda name: (-delta[name], name))
