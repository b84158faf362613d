"""The rules analyst: deterministic, no language model. Detectors find the evidence; runs vary by resampling it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.detectors.library import CAPABILITIES, DETECTORS
from trace_jax.analysis.discovery import SURE, Findings, asked_or_not, discover, tabulate
from trace_jax.analysis.episode import read_episodes
from trace_jax.analysis.patterns.joint import findings_of, is_word
from trace_jax.analysis.patterns.library import find_patterns
from trace_jax.analysis.patterns.names import describe, is_pattern
from trace_jax.contract.capability import Candidate, Candidates, Label, LabelRun, PairLabel
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

_MAX_CANDIDATES = 10
_DOUBT = (0.4, 0.7)  # a run draws from here the strength from which it believes LACKING; below it, PRESENT
_OVERLOOKED = 0.1  # chance that a run misses a piece of evidence, unless it is certain
_SAMPLED_TASKS = 0.8  # share of the tasks that a run sees


@dataclass
class _Evidence:
    """The findings of one set of trajectories, by candidate name; kept because all runs read the same ones."""

    trajectories: tuple[Trajectory, ...]
    tables: tuple[Findings, ...]


class RulesAnalyst:
    """Proposes skills of the library, failed checks and patterns of behaviour, and labels by what they find.

    Skills and patterns see messages, calls and results only; checks are read as the grader made them. No label depends
    on the reward. Each run sees 80 % of the tasks, overlooks a tenth of the findings that are not certain, and draws
    the strength from which it believes that something is LACKING.
    """

    name = "rules"

    def __init__(self) -> None:
        self._evidence: _Evidence | None = None

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates:
        """At most ten candidates, those that explain failures first, and all distractors."""
        tables = self._tables(trajectories)
        failed_N = np.array([not trajectory.passed for trajectory in trajectories], dtype=bool)
        skills = tabulate(tables, [detector.name for detector in CAPABILITIES], failed_N)
        seen = {name for table in tables for name in table}
        found, said = (sorted(filter(of, seen)) for of in (is_pattern, is_word))
        names, left_out = discover(
            skills,
            tabulate(tables, found, failed_N),
            asked_or_not(tabulate(tables, said, failed_N)),
            [trajectory.checks for trajectory in trajectories],
            np.array([_cut_off(trajectory) for trajectory in trajectories], dtype=bool),
            [trajectory.task for trajectory in trajectories],
        )
        return Candidates(
            analyst=self.name,
            capabilities=tuple(
                Candidate(
                    name=name,
                    description=DETECTORS[name].description if name in DETECTORS else describe(name),
                    examples=_examples(name, tables, trajectories),
                )
                for name in names[:_MAX_CANDIDATES]
            ),
            distractors=tuple(Candidate(name=d.name, description=d.description) for d in DISTRACTORS),
            left_out=left_out,
        )

    def label(self, trajectories: Sequence[Trajectory], candidates: Candidates, run: int, seed: int) -> LabelRun:
        """Label every pair of a sampled trajectory and a candidate; deterministic in ``seed`` and ``run``."""
        for candidate in candidates.all:
            if candidate.name not in DETECTORS and not is_pattern(candidate.name):
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
                noticed = tuple(
                    found
                    for found in findings_of(candidate.name, table)
                    if rng.random() >= _OVERLOOKED or found.strength >= 1.0
                )
                label = _label(noticed, threshold)
                evidence = next((found.evidence for found in noticed if found.label is label), "")
                labels.append(
                    PairLabel(trajectory=trajectory.id, capability=candidate.name, label=label, evidence=evidence)
                )
        return LabelRun(run=run, seed=seed, analyst=self.name, trajectories=tuple(seen), labels=tuple(labels))

    def _tables(self, trajectories: Sequence[Trajectory]) -> tuple[Findings, ...]:
        known = self._evidence
        given = tuple(trajectories)
        if known and len(known.trajectories) == len(given) and all(map(_same, known.trajectories, given)):
            return known.tables
        episodes = read_episodes(given)
        tables: list[Findings] = []
        patterns = find_patterns(episodes, [trajectory.checks for trajectory in given])
        for episode, table in zip(episodes, patterns, strict=True):
            for name, detector in DETECTORS.items():
                if found := tuple(detector.find(episode)):
                    table[name] = found
            tables.append(table)
        self._evidence = _Evidence(given, tuple(tables))
        return self._evidence.tables


def _same(first: Trajectory, second: Trajectory) -> bool:
    return first is second


def _cut_off(trajectory: Trajectory) -> bool:
    """True if the episode ended without the agent's last word."""
    last = next((message for message in reversed(trajectory.messages) if message.role != "system"), None)
    return last is None or last.role == "tool" or bool(last.tool_calls)


def _label(findings: Sequence[Finding], threshold: float) -> Label:
    """LACKING if some finding surely says so; else PRESENT if there was any occasion, a doubtful one too; else NA."""
    if any(not found.shown and found.strength >= threshold for found in findings):
        return Label.LACKING
    return Label.PRESENT if findings else Label.NA


def _examples(name: str, tables: Sequence[Findings], trajectories: Sequence[Trajectory]) -> tuple[str, ...]:
    """Up to four failed episodes that lack ``name``, surest evidence first."""
    strength = {
        trajectory.id: max(found.strength for found in findings_of(name, table) if not found.shown)
        for trajectory, table in zip(trajectories, tables, strict=True)
        if not trajectory.passed and _label(findings_of(name, table), SURE) is Label.LACKING
    }
    return tuple(sorted(strength, key=lambda name: (-strength[name], name))[:4])
