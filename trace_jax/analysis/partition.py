"""Checks that a label run labels every pair exactly once, and turns label runs into a table of codes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.statistics import LACKING, NA, PRESENT, UNSEEN
from trace_jax.contract.capability import Candidates, Label, LabelRun

_CODES = {Label.NA: NA, Label.PRESENT: PRESENT, Label.LACKING: LACKING}
_NAMED = 5  # offending pairs that are spelled out


def partition_fault(run: LabelRun, candidates: Candidates, known: set[str]) -> str | None:
    """Why ``run`` is refused, with the pairs named; None if every pair of its sample is labelled exactly once."""
    strangers = sorted(set(run.trajectories) - known)
    if strangers:
        return f"unknown trajectories: {', '.join(strangers[:_NAMED])}"
    if len(set(run.trajectories)) != len(run.trajectories):
        twice = [name for name, count in Counter(run.trajectories).items() if count > 1]
        return f"trajectories sampled twice: {', '.join(twice[:_NAMED])}"
    wanted = {(trajectory, candidate.name) for trajectory in run.trajectories for candidate in candidates.all}
    found = Counter((pair.trajectory, pair.capability) for pair in run.labels)
    faults = {
        "missing": sorted(wanted - set(found)),
        "labelled more than once": sorted(pair for pair, count in found.items() if count > 1),
        "not in the dictionary or sample": sorted(set(found) - wanted),
    }
    texts = [
        f"{what}: "
        + ", ".join(f"({t}, {c})" for t, c in pairs[:_NAMED])
        + (f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else "")
        for what, pairs in faults.items()
        if pairs
    ]
    return "; ".join(texts) or None


def code_table(runs: Sequence[LabelRun], candidates: Candidates, ids: Sequence[str]) -> NDArray[np.int8]:
    """Label codes ``[R, N, C]``, UNSEEN where a run's sample lacks the trajectory."""
    row = {name: index for index, name in enumerate(ids)}
    column = {candidate.name: index for index, candidate in enumerate(candidates.all)}
    codes = np.full((len(runs), len(ids), len(column)), UNSEEN, dtype=np.int8)
    for number, run in enumerate(runs):
        for pair in run.labels:
            codes[number, row[pair.trajectory], column[pair.capability]] = _CODES[pair.label]
    return codes
