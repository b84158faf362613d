"""Takes a check apart that fails for several causes, by the lapses of behaviour or kinds of request that go with it.

A grader that names fields of its state (``meetings``, ``reply``) fails the same check for many causes. A lapse goes
with the check if episodes that show it fail the check more often than others, beyond what the best of all lapses does
by chance. One lapse after the other is taken, from the failures that the former leave. General skills are few, and are
tested among themselves. The words of requests, which stand for a kind of request and name no skill, are tried last.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from trace_jax.analysis.association import Flags, Table, chance_bar, scores
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.patterns.joint import ASKED
from trace_jax.analysis.patterns.names import GENERAL, rank

MIN_OCCASIONS = 5  # episodes that show a lapse, and that do not
PRECISE = 0.5  # attributable share of a lapse that is believed
_KIND = 0.25  # the same for words: all who ask for something say them, and only some of these requests fail
LEVEL = 0.025  # chance that a lapse is believed falsely, in each family of lapses


def goes_with(lapses: Table, explained_N: Flags, tasks: Sequence[str]) -> Iterator[str]:
    """The lapses that go with the failures of ``lapses.failed_N`` beyond those ``explained_N``, best first.

    Episodes that a lapse explains are left out before the next one is looked for.
    """
    explained_N = explained_N.copy()
    while True:
        left_N = ~explained_N
        left = lapses.rows(left_N)
        best = _best(left, [task for task, kept in zip(tasks, left_N, strict=True) if kept])
        if best is None:
            return
        yield best
        explained_N |= lapses.hits_NP[:, lapses.names.index(best)]


def _best(table: Table, tasks: Sequence[str]) -> str | None:
    if not table.names or table.failed_N.all() or not table.failed_N.any():
        return None
    usable = table.only(
        (table.lacking_NP.sum(axis=0) >= MIN_OCCASIONS)
        & ((table.needed_NP & ~table.lacking_NP).sum(axis=0) >= MIN_OCCASIONS)
    )
    word_P = np.array([name.startswith(ASKED) for name in usable.names], dtype=bool)
    general_P = np.array([name in GENERAL or name in DETECTORS for name in usable.names], dtype=bool)
    found = [_family_best(usable.only(of), PRECISE, tasks) for of in (general_P, ~general_P & ~word_P)]
    believed = [pair for pair in found if pair]
    if not believed:
        believed = [pair for pair in [_family_best(usable.only(word_P), _KIND, tasks)] if pair]
    return max(believed, key=lambda pair: pair[0])[1] if believed else None  # the general one of equals


def _family_best(family: Table, least: float, tasks: Sequence[str]) -> tuple[float, str] | None:
    """The pattern of a family that separates best, with its score; None if the best could be so by chance."""
    precise = family.only((family.attributable_P >= least) & (family.support_P >= MIN_OCCASIONS))
    if not precise.names:
        return None
    score_P = scores(precise, precise.failed_N[None].astype(float))[0]
    best = float(score_P.max())
    if best <= chance_bar(family, tasks, LEVEL, 0):
        return None
    return best, min((name for name, score in zip(precise.names, score_P, strict=True) if score >= best), key=rank)
