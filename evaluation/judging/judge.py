"""Judges an analyst on one source after the other, in a work directory that can be gone on with."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from etils import epath

from evaluation.judging.agreement import share
from evaluation.judging.report import AnalystReport, Cost, SourceScore
from evaluation.judging.score import score
from evaluation.judging.sources import PEOPLE, Source
from trace_jax.analysis import Analyst, Criteria, analyse
from trace_jax.analysis.stage import source_of
from trace_jax.contract.files import read_document, write_document

SCORE = "score.json"

N = TypeVar("N", int, float)


class Judge:
    """Shows an analyst the episodes of sources, and scores what it selects.

    Args:
        open_analyst: a new analyst, which may keep files in the directory given.
        cost: what the analyst used in so many seconds.
    """

    def __init__(
        self,
        open_analyst: Callable[[epath.Path], Analyst],
        cost: Callable[[Analyst, float], Cost],
        *,
        runs: int,
        seed: int,
        criteria: Criteria,
    ) -> None:
        self._open, self._cost = open_analyst, cost
        self._runs, self._seed, self._criteria = runs, seed, criteria

    def source(self, source: Source, place: epath.Path) -> SourceScore:
        """The score on ``source``. What ``place`` holds of it is not done again."""
        if (place / SCORE).exists():
            return read_document(place / SCORE, SourceScore)
        truth = source.make()
        place.mkdir(parents=True, exist_ok=True)
        analyst, started = self._open(place), time.monotonic()
        found = analyse(
            truth.trajectories, analyst, place / "analysis", runs=self._runs, seed=self._seed, criteria=self._criteria
        )
        cost = self._cost(analyst, time.monotonic() - started)
        scored = score(found, truth, source_of(truth.trajectories).content, cost)
        write_document(place / SCORE, scored)
        return scored


def report_on(analyst: str, model: str | None, runs: int, scores: Iterable[SourceScore]) -> AnalystReport:
    """All scores together. People's labels are few and of another kind: they count in no sum."""
    scores = tuple(scores)
    planted = [each for each in scores if each.source != PEOPLE]
    faults = [fault.found for each in planted for fault in each.faults]
    chosen = [selected.right for each in planted for selected in each.selected]
    return AnalystReport(
        analyst=analyst,
        model=model,
        runs=runs,
        sources=scores,
        recall=share(sum(faults), len(faults)),
        precision=share(sum(chosen), len(chosen)),
        cost=Cost(
            seconds=sum(each.cost.seconds for each in scores),
            prompt_tokens=_sum(each.cost.prompt_tokens for each in scores),
            completion_tokens=_sum(each.cost.completion_tokens for each in scores),
            dollars=_sum(each.cost.dollars for each in scores),
        ),
    )


def _sum(values: Iterable[N | None]) -> N | None:
    """The sum; None if any is unknown."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(found) else None
