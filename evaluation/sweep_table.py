"""The table of a sweep: one row a cell, as JSON for programs and as CSV for spreadsheets."""

import csv
import io
from collections.abc import Mapping
from typing import Literal

from etils import epath

from evaluation import statistics
from evaluation.sweep_grid import Cell, Key
from trace_jax.contract.capability import Interval
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.record import Part, Record
from trace_jax.contract.storage import replace_bytes

JSON, CSV = "sweep.json", "sweep.csv"
Status = Literal["done", "failed", "gone"]  # gone: the training removed the checkpoint before it was scored


class SweepRow(Part):
    """One cell: what was scored, and its figures or the reason why there are none.

    Rows of one ``series`` differ by the ``step`` of a training. ``report`` is relative to the table.
    """

    target: str
    method: str
    temperature: float
    series: str
    step: int | None
    status: Status
    reason: str = ""
    report: str = ""
    rollouts_spent: int | None = None
    pass_rate: Interval | None = None
    mean_reward: Interval | None = None
    pass_hat_k: dict[str, Interval] = {}
    difference: Interval | None = None  # of the pass rate to the base's on the same tasks
    do_nothing: float | None = None  # pass rate of an agent that does nothing
    episodes: int = 0
    broken: int = 0
    turns: float | None = None
    seconds: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether so many episodes broke that the others may be a biased sample."""
        return self.broken > statistics.BROKEN_LIMIT * self.episodes

    @property
    def key(self) -> Key:
        """The key of its cell."""
        return self.target, self.method, self.temperature


class SweepTable(Record):
    """All cells of a sweep that have ended."""

    rows: tuple[SweepRow, ...]


def scored(cell: Cell, report: EvaluationReport, base: EvaluationReport | None, path: str) -> SweepRow:
    """The row of a cell with a report, which lies at ``path``; ``base`` is the report of the base in the same place."""
    (result,) = report.methods
    other = None if base is None or base.methods[0].method == result.method else base.methods[0].rewards
    return SweepRow(
        target=cell.target,
        method=cell.subject.name,
        temperature=cell.temperature,
        series=cell.series,
        step=cell.step,
        status="done",
        report=path,
        rollouts_spent=result.rollouts_spent,
        pass_rate=result.pass_rate,
        mean_reward=result.mean_reward,
        pass_hat_k=result.pass_hat_k,
        difference=None if other is None else statistics.paired_difference(result.rewards, other),
        do_nothing=None if report.do_nothing is None else report.do_nothing.pass_rate.mean,
        episodes=sum(map(len, result.rewards.values())),
        broken=result.broken,
        turns=None if result.effort is None else result.effort.turns,
        seconds=None if result.effort is None else result.effort.seconds,
    )


def not_scored(cell: Cell, status: Status, reason: str) -> SweepRow:
    """The row of a cell without a report."""
    return SweepRow(
        target=cell.target,
        method=cell.subject.name,
        temperature=cell.temperature,
        series=cell.series,
        step=cell.step,
        status=status,
        reason=reason,
    )


def read_rows(directory: epath.Path) -> dict[Key, SweepRow]:
    """The rows that an earlier sweep in ``directory`` has written."""
    path = directory / JSON
    return {row.key: row for row in read_document(path, SweepTable).rows} if path.exists() else {}


def write_rows(directory: epath.Path, rows: Mapping[Key, SweepRow]) -> None:
    """Write the table in both forms."""
    write_document(directory / JSON, SweepTable(rows=tuple(rows.values())))
    replace_bytes(directory / CSV, _as_csv(rows).encode())


def _as_csv(rows: Mapping[Key, SweepRow]) -> str:
    text = io.StringIO()
    ks = sorted({k for row in rows.values() for k in row.pass_hat_k}, key=int)
    plain = ("target", "method", "temperature", "series", "step", "status", "rollouts_spent")
    writer = csv.writer(text, lineterminator="\n")
    bounds = [f"{name}{end}" for name in ("pass_rate", "mean_reward", "difference") for end in ("", "_low", "_high")]
    rest = ("do_nothing", "episodes", "broken", "turns", "seconds", "reason", "report")
    writer.writerow([*plain, *bounds, *(f"pass^{k}" for k in ks), *rest])
    for row in rows.values():
        writer.writerow(
            [
                *(getattr(row, name) for name in plain),
                *(end for found in (row.pass_rate, row.mean_reward, row.difference) for end in _ends(found)),
                *(row.pass_hat_k[k].mean if k in row.pass_hat_k else None for k in ks),
                *(getattr(row, name) for name in rest),
            ]
        )
    return text.getvalue()


def _ends(found: Interval | None) -> tuple[float | None, ...]:
    return (None, None, None) if found is None else (found.mean, found.low, found.high)
