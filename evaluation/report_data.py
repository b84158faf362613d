"""What the report shows, gathered from the files of a work directory.

Files are known by what they hold, not by their names: every JSON document with the fields of an ``AnalysisReport``, an
``EnvironmentManifest``, an ``AdapterManifest`` or a ``RouteTable`` is read as one. ``run_summary.json`` adds what no
stage's own record holds.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from etils import epath
from pydantic import model_validator

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Interval
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

R = TypeVar("R", bound=Record)
Metrics = Mapping[int, Mapping[str, float]]  # step → name → value


class BudgetPoint(Part):
    """Held-out pass rate of a method after it had spent ``rollouts`` rollouts."""

    method: str
    temperature: float
    rollouts: int
    pass_rate: Interval


class Confusion(Part):
    """``counts[i][j]``: conversations of ``choices[i]`` that were sent to ``choices[j]``; ``""`` is the base."""

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
        """Share of the conversations that went where they belong."""
        total = sum(map(sum, self.counts))
        return sum(self.counts[i][i] for i in range(len(self.choices))) / total if total else 0.0


class RunSummary(Record):
    """What a pipeline run adds to its stages' files: where the evaluation is, how long stages took, and more."""

    title: str
    evaluation: str  # path of the EvaluationReport, relative to the work directory
    stage_seconds: dict[str, float]  # in the order of the stages
    confusion: Confusion | None = None
    budget: tuple[BudgetPoint, ...] = ()
    notes: dict[str, str] = {}


@dataclass(frozen=True)
class ReportData:
    """Everything on the report's page; absent parts leave their section out."""

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
    """Gather a finished run. Raises UserError when the summary is missing or any file is not what it should be."""
    directory = epath.Path(workdir)
    summary = read_document(directory / SUMMARY, RunSummary)
    analyses = find_documents(directory, AnalysisReport)
    tables = find_documents(directory, RouteTable)
    if len(analyses) > 1 or len(tables) > 1:
        odd = [os_path for os_path, _ in (analyses if len(analyses) > 1 else tables)][1]
        raise UserError(f"{odd}: a work directory holds one analysis report and one route table; move this one away")
    adapters = [(path, a) for path, a in find_documents(directory, AdapterManifest) if "snapshots" not in path.parts]
    return ReportData(
        title=summary.title,
        evaluation=read_document(directory / summary.evaluation, EvaluationReport),
        analysis=analyses[0][1] if analyses else None,
        environments=tuple(manifest for _, manifest in find_documents(directory, EnvironmentManifest)),
        adapters=tuple(adapter for _, adapter in adapters),
        metrics={a.name: read_metrics(path.parent) for path, a in adapters if (path.parent / METRICS_FILE).exists()},
        table=tables[0][1] if tables else None,
        confusion=summary.confusion,
        stage_seconds=summary.stage_seconds,
        budget=summary.budget,
        notes=summary.notes,
    )


def find_documents(directory: PathLike, model: type[R]) -> list[tuple[epath.Path, R]]:
    """All documents of type ``model`` under ``directory``, by path.

    Raises UserError for one of another version or damaged, and for any file that should be JSON and is not.
    """
    root = epath.Path(directory)
    if not root.is_dir():
        raise UserError(f"{root}: no such directory; give the work directory of a run")
    required = {name for name, info in model.model_fields.items() if info.is_required()}
    found = []
    for path in sorted(_json_files(root)):
        if required <= _keys(path):
            found.append((path, read_document(path, model)))
    return found


def _json_files(directory: epath.Path) -> Iterator[epath.Path]:
    """JSON files at any depth, checkpoints aside; step by step, because object stores know no recursive pattern."""
    for entry in directory.iterdir():
        if entry.is_dir():
            if entry.name != "checkpoints":
                yield from _json_files(entry)
        elif entry.suffix == ".json":
            yield entry


def _keys(path: epath.Path) -> set[str]:
    """The top-level keys of a JSON object; none for another value. What is no JSON may be a torn document: refused."""
    try:
        value: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}): make it again, or move it away") from None
    return set(value) if isinstance(value, dict) else set()
