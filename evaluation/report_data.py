"""The data of the report, gathered from the files of a work directory.

``run_summary.json`` names the files of the run, with their digests, and holds the data that no stage records. Other
manifests in the directory are left out of the report, with a warning.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from etils import epath
from pydantic import model_validator

from evaluation.report_files import read_named, read_report
from trace_jax.analysis.stage import check_labels
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Interval
from trace_jax.contract.digest import FileReference
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document
from trace_jax.contract.record import Part, Record
from trace_jax.contract.routing import RouteTable
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.telemetry.metrics import FILE as METRICS_FILE
from trace_jax.telemetry.metrics import read_metrics

SUMMARY = "run_summary.json"
_SHOWN = (AnalysisReport, EnvironmentManifest, AdapterManifest, RouteTable, EvaluationReport)

R = TypeVar("R", bound=Record)
log = logging.getLogger(__name__)

Metrics = Mapping[int, Mapping[str, float]]  # step → name → value


class BudgetPoint(Part):
    """Held-out pass rate of a method after it had spent ``rollouts`` rollouts."""

    method: str
    temperature: float
    rollouts: int
    pass_rate: Interval


class Confusion(Part):
    """``counts[i][j]`` conversations belong to ``choices[i]`` and were sent to ``choices[j]``; ``""`` is the base."""

    choices: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.choices)
        if len(self.counts) != size or any(len(row) != size for row in self.counts):
            raise ValueError(f"confusion counts are not {size} × {size}, one row and one column a choice")
        return self

    @property
    def accuracy(self) -> float:
        """Share of the conversations that were sent to the adapter they belong to; 0 if there are none."""
        total = sum(map(sum, self.counts))
        return sum(self.counts[i][i] for i in range(len(self.choices))) / total if total else 0.0


class RunSummary(Record):
    """The record of a finished run: the files that belong to it, the times of its stages, and further results.

    Paths are relative to the work directory.
    """

    schema_version: int = 2  # 2: names all files of the run, with their digests
    title: str
    evaluation: FileReference  # the EvaluationReport
    analysis: FileReference | None = None  # the AnalysisReport
    environments: tuple[FileReference, ...] = ()  # EnvironmentManifests
    adapters: tuple[FileReference, ...] = ()  # AdapterManifests, the baseline's included
    metrics: tuple[FileReference, ...] = ()  # the adapters' training metrics
    table: FileReference | None = None  # the RouteTable
    stage_seconds: dict[str, float]  # in the order of the stages
    confusion: Confusion | None = None
    budget: tuple[BudgetPoint, ...] = ()
    notes: dict[str, str] = {}

    @property
    def files(self) -> tuple[FileReference, ...]:
        """All files that the summary names."""
        single = (self.evaluation, self.analysis, self.table)
        return (
            *(reference for reference in single if reference is not None),
            *self.environments,
            *self.adapters,
            *self.metrics,
        )


@dataclass(frozen=True)
class ReportData:
    """The data of the report's page. A part that is absent leaves its section out."""

    title: str
    evaluation: EvaluationReport
    analysis: AnalysisReport | None = None
    environments: tuple[EnvironmentManifest, ...] = ()
    adapters: tuple[AdapterManifest, ...] = ()
    metrics: Mapping[str, Metrics] = field(default_factory=dict)  # adapter name → its training metrics
    table: RouteTable | None = None
    confusion: Confusion | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    budget: tuple[BudgetPoint, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def load_report_data(workdir: PathLike) -> ReportData:
    """Read the data of a finished run.

    Raises UserError if the summary is missing, or if a file that it names is missing, damaged or changed.
    """
    directory = epath.Path(workdir)
    path = directory / SUMMARY
    summary = read_document(path, RunSummary)

    def read(reference: FileReference, model: type[R]) -> R:
        return read_document(read_named(directory, reference, path), model)

    for stranger in strangers(directory, summary):
        log.warning("%s: not part of this run, because %s does not name it: left out of the report", stranger, SUMMARY)
    if summary.analysis is not None:
        check_labels((directory / summary.analysis.path).parent)
    adapters = [(directory / named.path, read(named, AdapterManifest)) for named in summary.adapters]
    for reference in summary.metrics:
        read_named(directory, reference, path)
    return ReportData(
        title=summary.title,
        evaluation=read_report(read_named(directory, summary.evaluation, path)),
        analysis=None if summary.analysis is None else read(summary.analysis, AnalysisReport),
        environments=tuple(read(named, EnvironmentManifest) for named in summary.environments),
        adapters=tuple(adapter for _, adapter in adapters),
        metrics={a.name: read_metrics(p.parent) for p, a in adapters if (p.parent / METRICS_FILE).exists()},
        table=None if summary.table is None else read(summary.table, RouteTable),
        confusion=summary.confusion,
        stage_seconds=summary.stage_seconds,
        budget=summary.budget,
        notes=summary.notes,
    )


def strangers(directory: epath.Path, summary: RunSummary) -> list[epath.Path]:
    """Manifests, tables and reports in ``directory`` that the ``summary`` of its run does not name, sorted by path.

    Snapshots of a named adapter belong to the run. A ``.json`` file that is not JSON is listed as well.
    """
    named = {directory / reference.path for reference in summary.files}
    found = []
    for path in sorted(_json_files(directory)):
        snapshot = path.name == MANIFEST and path.parent.parent.name == "snapshots"
        owner = path.parent.parent.parent / MANIFEST if snapshot else path
        if owner not in named and _is_shown(path):
            found.append(path)
    return found


def find_documents(directory: PathLike, model: type[R]) -> list[tuple[epath.Path, R]]:
    """All documents of type ``model`` under ``directory``, sorted by path.

    Raises UserError for a document that is damaged or has another version, and for a ``.json`` file that is not JSON.
    """
    root = epath.Path(directory)
    if not root.is_dir():
        raise UserError(f"{root}: no such directory: give the work directory of a run")
    found = []
    for path in sorted(_json_files(root)):
        if _required(model) <= _keys(path):
            found.append((path, read_document(path, model)))
    return found


def _is_shown(path: epath.Path) -> bool:
    try:
        keys = _keys(path)
    except UserError:
        return True
    return any(_required(model) <= keys for model in _SHOWN)


def _required(model: type[Record]) -> set[str]:
    return {name for name, info in model.model_fields.items() if info.is_required()}


def _json_files(directory: epath.Path) -> Iterator[epath.Path]:
    """JSON files at any depth, without checkpoints. It lists each level, as object stores have no recursive pattern."""
    for entry in directory.iterdir():
        if entry.is_dir():
            if entry.name != "checkpoints":
                yield from _json_files(entry)
        elif entry.suffix == ".json":
            yield entry


def _keys(path: epath.Path) -> set[str]:
    """The top-level keys of a JSON object; none for another value. Raises UserError for a file that is not JSON."""
    try:
        value: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}): make it again, or move it away") from None
    return set(value) if isinstance(value, dict) else set()
