"""The rules analyst: deterministic, no language model. Detectors find the evidence; runs vary by resampling it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.detectors.library import CAPABILITIES, DETECTORS
from trace_jax.analysis.episode import read_episodes
from trace_jax.analysis.mining import is_mined, mine, patterns
from trace_jax.contract.capability import Candidate, Candidates, Label, LabelRun, PairLabel
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

_MAX_CANDIDATES = 10
_MIN_FAILURES = 2  # failed episodes that must lack a capability before it is proposed
_SURE = 0.5  # strength from which discovery believes a finding
_DOUBT = (0.4, 0.7)  # a run draws from here the strength from which it believes LACKING; below it, PRESENT
_OVERLOOKED = 0.1  # chance that a run misses a piece of evidence
_SAMPLED_TASKS = 0.8  # share of the tasks that a run sees

Table = dict[str, tuple[Finding, ...]]


@dataclass
class _Evidence:
    """The findings of one set of trajectories, by candidate name; kept because all runs read the same ones."""

    trajectories: tuple[Trajectory, ...]
    tables: tuple[Table, ...]


class RulesAnalyst:
    """Proposes the detectors that find something, then mined patterns, and labels by what they find.

    Detectors see messages, calls and results only, so their labels cannot depend on the reward; patterns may also read
    the grader's checks. Each run sees 80 % of the tasks, overlooks a tenth of the findings, and draws the strength from
    which it believes that something is LACKING.
    """

    name = "rules"

    def __init__(self) -> None:
        self._evidence: _Evidence | None = None

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates:
        """At most ten candidates, the best at separating failed from passed first, and all distractors."""
        tables = self._tables(trajectories)
        failed_N = np.array([not trajectory.passed for trajectory in trajectories], dtype=bool)
        ids = [trajectory.id for trajectory in trajectories]
        ranked: list[tuple[float, Candidate]] = []
        explained_N = np.zeros_like(failed_N)
        for detector in CAPABILITIES:
            lacking_N = np.array(
                [_label(table.get(detector.name, ()), _SURE) is Label.LACKING for table in tables], dtype=bool
            )
            needed_N = np.array([bool(table.get(detector.name)) for table in tables], dtype=bool)
            if (lacking_N & failed_N).sum() < _MIN_FAILURES:
                continue
            explained_N |= lacking_N & failed_N
            separation = _rate(lacking_N, needed_N & failed_N) - _rate(lacking_N, needed_N & ~failed_N)
            candidate = Candidate(
                name=detector.name,
                description=detector.description,
                examples=_examples(detector.name, tables, ids, lacking_N & failed_N),
            )
            ranked.append((-separation, candidate))
        ranked.sort(key=lambda pair: (pair[0], pair[1].name))
        found_patterns = [{name: found[0] for name, found in t.items() if is_mined(name)} for t in tables]
        tasks = [trajectory.task for trajectory in trajectories]
        mined = mine(found_patterns, failed_N, explained_N, tasks, 0)
        named = [c.model_copy(update={"examples": tuple(ids[int(i)] for i in c.examples)}) for c in mined]
        return Candidates(
            analyst=self.name,
            capabilities=tuple([candidate for _, candidate in ranked] + named)[:_MAX_CANDIDATES],
            distractors=tuple(Candidate(name=d.name, description=d.description) for d in DISTRACTORS),
        )

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun:
        """Label every pair of a sampled trajectory and a candidate; deterministic in ``seed`` and ``run``."""
        for candidate in candidates.all:
            if candidate.name not in DETECTORS and not is_mined(candidate.name):
                raise UserError(f"candidate {candidate.name!r}: the rules analyst has no detector for it; drop it")
        tables = self._tables(trajectories)
        rng = np.random.default_rng([seed, run])
        tasks = sorted({trajectory.task for trajectory in trajectories})
        count = max(1, round(_SAMPLED_TASKS * len(tasks))) if tasks else 0
        sampled = {tasks[i] for i in rng.permutation(len(tasks))[:count]}
        threshold = float(rng.uniform(*_DOUBT))
        labels, seen = [], []
        for trajectory, table in zip(trajectories, tables, strict=True):
            if trajectory.task not in sampled:
                continue
            seen.append(trajectory.id)
            for candidate in candidates.all:
                noticed = tuple(found for found in table.get(candidate.name, ()) if rng.random() >= _OVERLOOKED)
                label = _label(noticed, threshold)
                evidence = next((found.evidence for found in noticed if found.label is label), "")
                labels.append(
                    PairLabel(trajectory=trajectory.id, capability=candidate.name, label=label, evidence=evidence)
                )
        return LabelRun(run=run, seed=seed, analyst=self.name, trajectories=tuple(seen), labels=tuple(labels))

    def _tables(self, trajectories: Sequence[Trajectory]) -> tuple[Table, ...]:
        known = self._evidence
        given = tuple(trajectories)
        if known and len(known.trajectories) == len(given) and all(map(_same, known.trajectories, given)):
            return known.tables
        tables: list[Table] = []
        for trajectory, episode in zip(given, read_episodes(given), strict=True):
            table: Table = {name: tuple(detector.find(episode)) for name, detector in DETECTORS.items()}
            table |= {name: (found,) for name, found in patterns(episode, trajectory.checks)}
            tables.append({name: found for name, found in table.items() if found})
        self._evidence = _Evidence(given, tuple(tables))
        return self._evidence.tables


def _same(first: Trajectory, second: Trajectory) -> bool:
    return first is second


def _label(findings: Sequence[Finding], threshold: float) -> Label:
    """LACKING if some finding surely says so; else PRESENT if there was any occasion, a doubtful one too; else NA."""
    if any(not found.shown and found.strength >= threshold for found in findings):
        return Label.LACKING
    return Label.PRESENT if findings else Label.NA


def _rate(lacking_N: np.ndarray, among_N: np.ndarray) -> float:
    return float((lacking_N & among_N).sum() / among_N.sum()) if among_N.any() else 0.0


def _examples(name: str, tables: Sequence[Table], ids: Sequence[str], hits_N: np.ndarray) -> tuple[str, ...]:
    """Up to four failed episodes, surest evidence first."""
    rows = [int(row) for row in np.flatnonzero(hits_N)]
    strength = {ids[row]: max(found.strength for found in tables[row][name] if not found.shown) for row in rows}
    return tuple(sorted(strength, key=lambda name: (-strength[name], name))[:4])
