"""Checks a whole work directory: every record against the contract and its seal, every file against its digest."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from etils import epath

from evaluation import statistics
from evaluation.do_nothing import FILE as DO_NOTHING
from evaluation.report_data import SUMMARY, RunSummary, strangers
from evaluation.report_files import read_named, read_report
from evaluation.sweep_table import JSON as SWEEP
from evaluation.sweep_table import SweepTable
from trace_jax.analysis.stage import CANDIDATES, RUNS, SELECTED, SOURCE, Source, check_labels, source_of
from trace_jax.analysis.stage import REPORT as ANALYSIS_REPORT
from trace_jax.contract.adapter import MANIFEST, PEFT_FILES, AdapterManifest, check_adapter
from trace_jax.contract.capability import AnalysisReport, Candidates, LabelRun, SelectedCapability
from trace_jax.contract.digest import check_log
from trace_jax.contract.environment import DesignAttempt, EnvironmentManifest, calibration_path
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.lines import read_lines
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.record import Record
from trace_jax.contract.routing import RouteDecision, RouteTable, check_gate
from trace_jax.contract.seal import check_seal, unsealed
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import FILE, WorkDirectory, fingerprint
from trace_jax.errors import UserError
from trace_jax.pipeline.method import BASE_ROLLOUTS
from trace_jax.relay.files import CHECKSUMS, Checksums
from trace_jax.telemetry.metrics import FILE as METRICS
from trace_jax.telemetry.metrics import read_metrics

Check = Callable[[epath.Path], None]  # raises UserError
RESTORE = "restore the file"
_SKIPPED = ("checkpoints", "published")  # directories of Orbax, and of adapters that are sent to servers


@dataclass(frozen=True)
class Finding:
    """One file: its kind, and its first problem; None if it has none."""

    path: str  # relative to the work directory
    what: str
    problem: str | None = None
    note: str = ""


def verify(workdir: epath.Path, found: Callable[[Finding, int], None]) -> list[Finding]:
    """Check all JSON files below ``workdir``, and the files whose digests they hold.

    ``found(finding, total)`` is called for each file, with the total number of files. A file with a problem is a
    finding and does not end the check. Raises UserError if there is no such directory.
    """
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such directory: give the work directory of a run")
    paths, findings = sorted(_files(workdir)), []
    foreign = _foreign(workdir)
    for path in paths:
        relative = path.relative_to(workdir).as_posix()
        what, check = next((what, check) for pattern, what, check in _KINDS if fnmatch(f"/{relative}", pattern))
        note = f"{SUMMARY} does not name it" if path in foreign else ""
        try:
            check(path)
            findings.append(Finding(relative, what, note=note))
        except UserError as error:
            findings.append(Finding(relative, what, problem=str(error), note=note))
        found(findings[-1], len(paths))
    return findings


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    """The files to check. The files of an adapter's PEFT directory are checked with its manifest."""
    for entry in directory.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.suffix == ".jsonl":  # a directory of shards in an object store
            yield entry
        elif entry.is_dir():
            if entry.name not in _SKIPPED:
                yield from _files(entry)
        elif entry.suffix == ".json" and entry.name not in PEFT_FILES:
            yield entry


def _foreign(workdir: epath.Path) -> set[epath.Path]:
    """The files that do not belong to the run. Empty if the run has not ended or its summary cannot be read."""
    try:
        return set(strangers(workdir, read_document(workdir / SUMMARY, RunSummary)))
    except UserError:
        return set()


def _document(model: type[Record]) -> Check:
    def check(path: epath.Path) -> None:
        read_document(path, model)

    return check


def _log(model: type[Record]) -> Check:
    def check(path: epath.Path) -> None:
        for _ in read_records(path, model):
            pass

    return check


def _work_directory(path: epath.Path) -> None:
    found = read_document(path, WorkDirectory)
    if (expected := fingerprint(found.config)) != found.fingerprint:
        raise UserError(f"{path}: fingerprint {found.fingerprint}, its config has {expected}: {RESTORE}")


def _summary(path: epath.Path) -> None:
    summary = read_document(path, RunSummary)
    for reference in summary.files:
        read_named(path.parent, reference, path)
    if summary.analysis is not None:
        _require(path.parent / BASE_ROLLOUTS, path)


def _require(path: epath.Path, named_by: epath.Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file, but {named_by} was made from it: {RESTORE}")


def _adapter(path: epath.Path) -> None:
    check_adapter(path, read_document(path, AdapterManifest))


def _environment(path: epath.Path) -> None:
    manifest = read_document(path, EnvironmentManifest)
    if manifest.recorded is not None:
        check_log(calibration_path(path.parent, manifest.capability), manifest.recorded, path, RESTORE)


def _table(path: epath.Path) -> None:
    table = read_document(path, RouteTable)
    if table.gate is not None:
        check_gate(path, table)
    for route in table.routes:
        place = path.parent.parent / "adapters" / route.adapter / MANIFEST
        if not place.exists():
            continue  # the adapters of an ablation are in the work directory of the original run
        manifest = read_document(place, AdapterManifest)
        if (manifest.name, manifest.base) != (route.adapter, table.base):
            raise UserError(
                f"{path}: routes to {route.adapter} of base {table.base}, {place} is {manifest.name} of base "
                f"{manifest.base}: {RESTORE}"
            )


def _analysis(path: epath.Path) -> None:
    report, place = read_document(path, AnalysisReport), path.parent
    for name in (SOURCE, CANDIDATES, RUNS, SELECTED):
        _require(place / name, path)
    check_labels(place)
    expected = [found.capability.name for found in report.capabilities if found.selected and not found.distractor]
    selected = [found.capability.name for found in read_records(place / SELECTED, SelectedCapability)]
    if sorted(selected) != sorted(expected):
        raise UserError(f"{place / SELECTED}: selects {selected}, {path} selects {expected}: {RESTORE}")


def _source(path: epath.Path) -> None:
    source, rollouts = read_document(path, Source), path.parent.parent / BASE_ROLLOUTS
    if not rollouts.exists():
        return
    found = source_of(read_episodes(rollouts))
    if found.content != source.content:
        raise UserError(
            f"{rollouts}: {found.trajectories} episodes of content {found.content}, {path} was made from "
            f"{source.trajectories} of {source.content}: {RESTORE}"
        )


def _report(path: epath.Path) -> None:
    report = read_report(path)
    for method in report.methods:
        expected = (statistics.pass_rate(method.rewards), statistics.mean_reward(method.rewards))
        if (method.pass_rate, method.mean_reward) != expected:
            raise UserError(
                f"{path}: method {method.method} at temperature {method.temperature:g}: pass rate "
                f"{method.pass_rate.mean} and mean reward {method.mean_reward.mean}, its rewards give "
                f"{expected[0].mean} and {expected[1].mean}: {RESTORE}"
            )


def _metrics(path: epath.Path) -> None:
    read_metrics(path.parent)


def _lines(path: epath.Path) -> None:
    for where, line in read_lines(path):
        _object(where, line)


def _json(path: epath.Path) -> None:
    _object(str(path), path.read_bytes())


def _object(where: str, data: bytes) -> None:
    """Check a record of an unknown model: it must be JSON and fit its seal, if it has one."""
    body, stated, found = unsealed(data)
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}): {RESTORE}") from None
    check_seal(where, stated, found)


# The first pattern that fits a file's path, relative to the work directory, gives the file's kind and check.
_KINDS: tuple[tuple[str, str, Check], ...] = (
    (f"/{FILE}", "work directory", _work_directory),
    (f"/{SUMMARY}", "summary", _summary),
    (f"*/{MANIFEST}", "adapter, its weights", _adapter),
    ("*/environments/*.failed.json", "failed capability", _document(SelectedCapability)),
    ("*/environments/*.json", "environment", _environment),
    ("*/capabilities/*.json", "capability", _document(SelectedCapability)),
    ("*/route_table.json", "route table, gate", _table),
    (f"*/{ANALYSIS_REPORT}", "analysis, its labels", _analysis),
    (f"*/{CANDIDATES}", "candidates", _document(Candidates)),
    (f"*/{SOURCE}", "source of the analysis", _source),
    (f"*/{RUNS}", "labels", _log(LabelRun)),
    (f"*/{SELECTED}", "selection", _log(SelectedCapability)),
    ("*/evaluation/report.json", "evaluation, episodes", _report),
    ("*/evaluation.json", "evaluation, episodes", _report),
    (f"*/{SWEEP}", "sweep", _document(SweepTable)),
    ("*/decisions.jsonl", "route decisions", _log(RouteDecision)),
    ("*/trajectories.jsonl", "episodes", _log(Trajectory)),
    ("*/on_the_way.jsonl", "episodes", _log(Trajectory)),
    (f"*/{DO_NOTHING}", "episodes", _log(Trajectory)),
    ("*rollouts.jsonl", "episodes", _log(Trajectory)),
    ("*/environments/*.attempts.jsonl", "attempts of a failed capability", _log(DesignAttempt)),
    ("*/model_calls.jsonl", "requests to a language model", _log(ModelCall)),
    (f"*/{METRICS}", "metrics", _metrics),
    (f"*/{CHECKSUMS}", "checksums of a relay", _document(Checksums)),
    ("*.jsonl", "JSON Lines", _lines),
    ("*", "JSON", _json),
)
