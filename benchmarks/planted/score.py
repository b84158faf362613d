"""Which planted faults an analysis found, by the test bed's own books."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.judging.match import PRECISION, Match, match
from evaluation.planted.grading import Style, with_checks
from evaluation.planted.play import DISTRACTORS, Planted, Played, play
from trace_jax.analysis import analyse, make_analyst


@dataclass(frozen=True)
class Verdict:
    """What became of one analysis: the best match of every fault, distractors, and what matches neither."""

    faults: Mapping[str, Match | None]
    distractors: tuple[str, ...]
    others: tuple[Match, ...]
    passed: int
    failed: int


def judge(target: Planted, seed: int, count: int, style: Style) -> Verdict:
    """Play ``count`` episodes, show them to the rules analyst with checks in ``style``, and open the books.

    ``aspects``: checks as the target names them; ``coarse``: one for the state and one for what was said; ``none``.
    """
    played = play(target, seed, count)
    shown = [with_checks(episode.trajectory, style) for episode in played]
    with tempfile.TemporaryDirectory() as directory:
        found = analyse(shown, make_analyst("rules"), directory)
    matches = {
        chosen.capability.name: {
            name: _match(chosen.capability.name, chosen.failed_examples, played, name)
            for name in (*target.faults, *DISTRACTORS)
        }
        for chosen in found.selected
    }
    best = {
        fault: max(
            (by[fault] for by in matches.values()), key=lambda m: (m.found, m.precision * m.coverage), default=None
        )
        for fault in target.faults
    }
    warned = [each.capability.name for each in found.report.capabilities if each.distractor and each.selected]
    habits = [name for name, by in matches.items() if any(by[habit].found for habit in DISTRACTORS)]
    others = [
        max((by[fault] for fault in target.faults), key=lambda m: m.precision)
        for by in matches.values()
        if not any(match.precision >= PRECISION for match in by.values())
    ]
    return Verdict(best, tuple(warned + habits), tuple(others), found.report.passed, found.report.failed)


def _match(name: str, examples: Sequence[str], played: Sequence[Played], cause: str) -> Match:
    """The failed examples of a capability against the failed episodes that have ``cause``, a fault or a habit."""
    having = {p.trajectory.id for p in played if cause in p.faults | p.habits and not p.trajectory.passed}
    return match(name, frozenset(examples), cause, frozenset(having))
