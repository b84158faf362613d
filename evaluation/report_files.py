"""Reads reports and summaries, and refuses those whose files were changed."""

import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from trace_jax.analysis.stage import REPORT as ANALYSIS_REPORT
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.digest import FileReference, check_file, check_log, log_checksum, refer
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document
from trace_jax.contract.storage import PathLike
from trace_jax.telemetry.metrics import FILE as METRICS

ANALYSIS, ENVIRONMENTS, TABLE = f"analysis/{ANALYSIS_REPORT}", "environments", "routing/route_table.json"


def with_episodes(report: EvaluationReport, path: PathLike, directory: PathLike) -> EvaluationReport:
    """The report with the digest of episodes of its own, the log at ``path``. The report belongs into ``directory``."""
    name = os.path.relpath(os.fspath(path), os.fspath(directory))
    return report.replace(episodes={**report.episodes, name: log_checksum(path)})


def read_report(path: PathLike) -> EvaluationReport:
    """The report at ``path``. Raises UserError if its episodes were changed."""
    report = read_document(path, EvaluationReport)
    for name, expected in report.episodes.items():
        remedy = "episodes were changed after the report: restore the file, or remove both and evaluate again"
        check_log(epath.Path(path).parent / name, expected, path, remedy)
    return report


def read_named(directory: epath.Path, reference: FileReference, named_by: PathLike) -> epath.Path:
    """The path in ``directory`` of a file that the document ``named_by`` names. Raises UserError if it was changed."""
    path = directory / reference.path
    remedy = "the file was changed after the run: restore it, or remove the summary and start the run again"
    check_file(path, reference.sha256, named_by, remedy)
    return path


def run_files(root: PathLike, report: str, adapters: Sequence[PathLike]) -> dict[str, Any]:
    """The fields of a ``RunSummary`` that name the files of the run in ``root``.

    These are the evaluation ``report`` (relative to ``root``), the manifests of its ``adapters`` and of their
    environments, and, if the run has them, the metrics of the adapters, the analysis and the route table.
    """
    directory = epath.Path(root)
    manifests = [read_document(path, AdapterManifest) for path in adapters]
    metrics = [epath.Path(path).parent / METRICS for path in adapters]
    names = dict.fromkeys(name for manifest in manifests if manifest.capabilities for name in manifest.environments)

    def reference(path: str) -> FileReference | None:
        return refer(directory / path, directory) if (directory / path).exists() else None

    return {
        "evaluation": refer(directory / report, directory),
        "analysis": reference(ANALYSIS),
        "environments": tuple(refer(directory / ENVIRONMENTS / f"{name}.json", directory) for name in names),
        "adapters": tuple(refer(path, directory) for path in adapters),
        "metrics": tuple(refer(path, directory) for path in metrics if path.exists()),
        "table": reference(TABLE),
    }
