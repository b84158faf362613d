"""Candidates mined from the sample: tool errors, order of calls, and failed checks that go with failure.

A pattern is named after its tools, so that the name alone says how to label it. Hundreds of patterns are tried. A
pattern is kept only if it separates failed from passed episodes better than the best of *all* patterns does when the
outcomes are shuffled (P. Westfall, S. Young, "Resampling-Based Multiple Testing", 1993).
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.resample import exchanged_outcomes
from trace_jax.analysis.statistics import ratio
from trace_jax.contract.capability import Candidate
from trace_jax.contract.trajectory import Check

_PREFIXES = ("avoid_errors_of_", "call_", "avoid_", "meet_check_")
MIN_OCCASIONS = 5
_LEVEL = 0.99
_SHUFFLES = 1000


def slug(text: str) -> str:
    """A name made of lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def is_mined(name: str) -> bool:
    """True if ``name`` is a pattern of this module."""
    return name.startswith(_PREFIXES)


def patterns(episode: Episode, checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """Every pattern that the episode gave occasion for, with its finding."""
    for name in sorted({call.name for call in episode.calls}):
        failed = [call for call in episode.calls if call.name == name and call.failed]
        tool = slug(name)
        if failed:
            yield f"avoid_errors_of_{tool}", lacking(0.8, f"{name} answered {failed[0].result[:80]}")
        else:
            yield f"avoid_errors_of_{tool}", present(0.8, f"{name} never failed")
    yield from _order(episode)
    for name in sorted({check.name for check in checks}):
        missed = [check for check in checks if check.name == name and not check.passed]
        found = lacking(0.8, missed[0].detail or name) if missed else present(0.8, name)
        yield f"meet_check_{slug(name)}", found


def _order(episode: Episode) -> Iterator[tuple[str, Finding]]:
    calls = [call for call in episode.calls if not call.failed and call.kind in ("read", "write")]
    reads = {call.name for call in calls if call.kind == "read"}
    for write in sorted({call.name for call in calls if call.kind == "write"}):
        first = next(call.order for call in calls if call.name == write)
        before = {call.name for call in calls if call.order < first}
        for read in sorted(reads | before):
            if read == write:
                continue
            shown = read in before
            yield f"call_{slug(read)}_before_{slug(write)}", Finding(shown, 0.8, f"{read} before {write}: {shown}")
    pairs = {(call.name, after.name) for call, after in zip(calls, calls[1:], strict=False) if call.turn == after.turn}
    names = sorted({call.name for call in calls})
    for earlier in names:
        for later in names:
            if earlier != later:
                done = (earlier, later) in pairs
                evidence = f"{later} right after {earlier}: {done}"
                yield f"avoid_{slug(later)}_after_{slug(earlier)}", Finding(not done, 0.8, evidence)


def describe(name: str) -> str:
    """What the pattern ``name`` asks of the agent."""
    subject = name.replace("_", " ")
    return (
        f"A pattern found in the data, not a skill known beforehand: {subject}. It applies where the tools or checks "
        "that it names occur. LACKING if the episode does not keep to it."
    )


def mine(
    findings: Sequence[dict[str, Finding]],
    failed_N: NDArray[np.bool_],
    explained_N: NDArray[np.bool_],
    tasks: Sequence[str],
    seed: int,
) -> list[Candidate]:
    """Candidates among the patterns in ``findings`` (one table an episode), best first.

    Left out are checks that fail on no passed episode, because they are part of the reward and no cause of failure,
    and patterns whose failures are mostly ``explained_N`` by detectors of the library.
    """
    names = sorted({name for table in findings for name in table})
    if not names or failed_N.all() or not failed_N.any():
        return []
    lacking_NP = np.array([[name in table and not table[name].shown for name in names] for table in findings])
    present_NP = np.array([[name in table and table[name].shown for name in names] for table in findings])
    usable_P = (lacking_NP.sum(axis=0) >= MIN_OCCASIONS) & (present_NP.sum(axis=0) >= MIN_OCCASIONS)
    is_check_P = np.array([name.startswith("meet_check_") for name in names])
    usable_P &= ~is_check_P | (lacking_NP & ~failed_N[:, None]).any(axis=0)
    if not usable_P.any():
        return []
    score_P = np.where(usable_P, _score(lacking_NP, present_NP, failed_N), -np.inf)
    rng = np.random.default_rng(seed)
    best = [
        float(np.max(_score(lacking_NP, present_NP, outcome_N)[usable_P]))
        for outcome_N in exchanged_outcomes(failed_N, tasks, _SHUFFLES, rng)
    ]
    bar = max(float(np.quantile(best, _LEVEL)), 0.0)
    kept = []
    for column in np.argsort(-score_P, kind="stable"):
        hit_N = lacking_NP[:, column] & failed_N
        if score_P[column] <= bar or 2 * (hit_N & explained_N).sum() > hit_N.sum():
            continue
        examples = tuple(str(i) for i in np.flatnonzero(hit_N)[:4])
        kept.append(Candidate(name=names[column], description=describe(names[column]), examples=examples))
    return kept


def _score(
    lacking_NP: NDArray[np.bool_], present_NP: NDArray[np.bool_], failed_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Difference of LACKING rates, failed minus passed, in standard errors under equal rates, ``[P]``."""
    lacking_failed, present_failed = (x[failed_N].sum(axis=0).astype(float) for x in (lacking_NP, present_NP))
    lacking_passed, present_passed = (x[~failed_N].sum(axis=0).astype(float) for x in (lacking_NP, present_NP))
    failed, passed = lacking_failed + present_failed, lacking_passed + present_passed
    rate = ratio(lacking_failed + lacking_passed, failed + passed)
    spread = np.sqrt(rate * (1 - rate) * (ratio(np.ones_like(failed), failed) + ratio(np.ones_like(passed), passed)))
    both = (failed > 0) & (passed > 0)
    return ratio(np.where(both, ratio(lacking_failed, failed) - ratio(lacking_passed, passed), 0.0), spread)
