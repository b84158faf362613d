"""Scores the cells of a sweep one after the other, and new ones as their checkpoints land."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from etils import epath

from evaluation.do_nothing import FILE as NOTHING
from evaluation.landing import Landing
from evaluation.models import BaseOnDemand, Models
from evaluation.scoring import REPORT, score, settings_identity, source_of
from evaluation.subjects import BASE
from evaluation.sweep_grid import Cell, Key, file_name, grid
from evaluation.sweep_table import Status, SweepRow, not_scored, read_rows, scored, write_rows
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.storage import replace_bytes
from trace_jax.contract.trajectory import Split
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.hosts.checks import one_line
from trace_jax.environments.source import Source
from trace_jax.errors import EngineGone, TraceError, UserError
from trace_jax.run_settings import RunSettings
from trace_jax.telemetry.progress import Progress

PLOT = "sweep.svg"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a sweep is over. ``places`` are searched for checkpoints."""

    targets: Sequence[str]
    temperatures: Sequence[float]
    places: Sequence[epath.Path]
    tables: Sequence[epath.Path]


class Sweep:
    """A sweep in a work directory, which belongs to its settings and base. The axes may grow.

    Cells that an earlier start has scored are not played again. A cell that fails is recorded with its reason, and the
    others go on; the next start tries it again. Table and plot are written anew after every cell.

    Raises UserError for a work directory of other settings, or of another base.
    """

    def __init__(
        self, settings: RunSettings, axes: Axes, split: Split, workdir: epath.Path, progress: Progress
    ) -> None:
        self._settings, self._axes, self._split, self._workdir = settings, axes, split, workdir
        self._progress, self._base, self._landing = progress, BaseOnDemand(settings), Landing(axes.places)
        identity = settings_identity(settings, split)
        del identity["target"]["environment"]  # targets may be added
        open_workdir(workdir, {**identity, "base_revision": self._base.revision})
        self._rows = {key: row for key, row in read_rows(workdir).items() if row.status == "done"}
        self._bases: dict[tuple[str, float], EvaluationReport] = {}  # reports of the base, by target and temperature
        self._ended: set[Key] = set()  # in this start
        self._sources: dict[str, Source] = {}

    @property
    def rows(self) -> tuple[SweepRow, ...]:
        """The cells that have ended."""
        return tuple(self._rows.values())

    def once(self, patient: bool = False) -> int:
        """Score the cells of the checkpoints that there are now (see ``Landing``); the number of them that were new."""
        axes, checkpoints = self._axes, self._landing.search(patient)
        cells = grid(axes.targets, axes.temperatures, checkpoints, axes.tables)
        new = [cell for cell in cells if cell.key not in self._ended]
        for cell in new:
            self._end(cell, self._score(cell))
        if new:
            self._write()
        return len(new)

    def watch(self, seconds: float) -> None:
        """Score what lands, and look for more every so many ``seconds``, until all trainings have ended."""
        while True:
            complete = self._landing.complete()  # before the search, which then finds what a training wrote last
            if not self.once(patient=True) and complete and not self._landing.waiting:
                return
            time.sleep(seconds)

    def _score(self, cell: Cell) -> SweepRow:
        path = self._workdir / cell.directory
        try:
            settings = replace(self._settings, target=replace(self._settings.target, environment=cell.target))
            nothing = self._workdir / file_name(cell.target) / NOTHING
            report = score(
                Models(settings, self._base),
                self._source(settings),
                [cell.subject],
                [cell.temperature],
                path,
                progress=self._progress,
                label=f"{cell.subject.name} on {cell.target} at T={cell.temperature:g}",
                nothing=nothing,
            )
        except EngineGone:
            raise
        except (TraceError, OSError, FloatingPointError) as error:
            return self._failure(cell, str(error))
        except Exception as error:  # a fault of a target, or of ours, must not cost the other cells
            log.exception("%s on %s", cell.subject.name, cell.target)
            return self._failure(cell, one_line(error))
        if cell.subject.name == BASE:
            self._bases[cell.target, cell.temperature] = report
        return scored(cell, report, self._bases.get((cell.target, cell.temperature)), f"{cell.directory}/{REPORT}")

    def _source(self, settings: RunSettings) -> Source:
        """The tasks of a target, which is made once: it may have worker processes."""
        name = settings.target.environment
        if name not in self._sources:
            self._sources[name] = source_of(settings, self._split)
        return self._sources[name]

    def _failure(self, cell: Cell, reason: str) -> SweepRow:
        removed = [checkpoint.path for checkpoint in cell.subject.checkpoints() if not checkpoint.path.exists()]
        status: Status = "gone" if removed else "failed"
        if removed:
            reason = f"{removed[0]}: its training removed it before it was scored: keep more, with training.keep_period"
        return not_scored(cell, status, reason)

    def _end(self, cell: Cell, row: SweepRow) -> None:
        self._ended.add(cell.key)
        if row.status != "done":
            self._progress.print(f"{row.method} on {row.target} at T={row.temperature:g} {row.status}: {row.reason}")
        if self._rows.get(cell.key) != row:
            self._rows[cell.key] = row
            self._write()

    def _write(self) -> None:
        write_rows(self._workdir, self._rows)
        if any(row.status == "done" for row in self._rows.values()):
            from evaluation.sweep_plot import draw_sweep  # matplotlib is slow to import

            replace_bytes(self._workdir / PLOT, draw_sweep(self.rows))


def check_failures(rows: Sequence[SweepRow]) -> None:
    """Raise UserError if a cell failed, with the first reason."""
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(rows)} cells failed, the first ({first.method} on {first.target} at "
            f"T={first.temperature:g}) with: {first.reason}: the same command tries them again"
        )
