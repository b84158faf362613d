"""Stage 1 from end to end: trajectories → candidates, label runs, report, selected capabilities."""

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from etils import epath

from trace_jax.analysis.aggregate import aggregate
from trace_jax.analysis.analyst import Analyst, ConcurrentAnalyst
from trace_jax.analysis.idle import idle_passes
from trace_jax.analysis.select import DEFAULT_CRITERIA, Criteria, selected_capabilities
from trace_jax.contract.capability import AnalysisReport, Candidates, LabelRun, SelectedCapability
from trace_jax.contract.digest import check_log, log_checksum
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.record import Record
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

CANDIDATES, RUNS, REPORT, SELECTED = "candidates.json", "label_runs.jsonl", "analysis_report.json", "selected.jsonl"
SOURCE = "source.json"
CALLS = "model_calls.jsonl"  # what an analyst asked of a language model
_READ = {"id", "task", "messages", "checks", "reward"}  # what an analysis depends on; seconds and tokens it does not

log = logging.getLogger(__name__)


class Source(Record):
    """The trajectories that the other files of the directory were made from."""

    schema_version: int = 3  # 2: has ``content``; 3: ``given_away``
    trajectories: int
    digest: str  # first 16 hex digits of SHA-256 over what the analysis reads of them, in their order
    content: str  # the same over sorted lines: a log of episodes keeps them in the order of their ends
    given_away: tuple[str, ...] = ()  # tasks that an agent passes that does nothing


@dataclass(frozen=True)
class Analysis:
    """All that stage 1 found."""

    candidates: Candidates
    runs: tuple[LabelRun, ...]
    report: AnalysisReport
    selected: tuple[SelectedCapability, ...]


def analyse(
    trajectories: Sequence[Trajectory],
    analyst: Analyst,
    directory: str | PurePath | epath.Path,
    *,
    runs: int = 10,
    seed: int = 0,
    criteria: Criteria = DEFAULT_CRITERIA,
    given_away: Collection[str] = (),
) -> Analysis:
    """Discover, label ``runs`` times, aggregate and select. Files that ``directory`` holds are read, not made anew.

    ``given_away`` are the tasks that an agent passes that does nothing. A passed episode of theirs in which the agent
    did nothing shows no skill: it is left out (``idle_passes``), and the report counts it.

    Warns if no trajectory failed, or none passed: nothing can be selected then. Raises UserError for a held-out
    trajectory, for an id that occurs twice, for trajectories of two base models, for files in ``directory`` that were
    made from other trajectories or with another seed or analyst, for labels that were changed after a report was made
    from them, and when no label run is a clean partition.
    """
    if runs < 1:
        raise UserError(f"an analysis of {runs} label runs: set analysis.runs to 1 at least")
    free, idle = tuple(sorted(given_away)), idle_passes(trajectories, given_away)
    counted = [trajectory for trajectory in trajectories if trajectory.id not in idle]
    usable = graded_trajectories(counted)
    place = epath.Path(directory)
    _claim(place, source_of(trajectories).replace(given_away=free))
    candidates = _candidates(place / CANDIDATES, usable, analyst)
    check_labels(place)
    label_runs = _label_runs(place / RUNS, usable, analyst, candidates, runs, seed)
    report = aggregate(candidates, label_runs, counted, criteria, seed)
    if len(report.rejected_runs) == len(label_runs):
        fault = next(iter(report.rejected_runs.values()))
        raise UserError(
            f"{place / RUNS}: none of {len(label_runs)} label runs can be used ({fault}): mend the analyst, then "
            "remove the file"
        )
    _warn_of_distractors(report, analyst.name)
    report = report.replace(labels=log_checksum(place / RUNS), given_away=free, idle=len(idle))
    selected = selected_capabilities(report, label_runs, usable)
    write_document(place / REPORT, report)
    (place / SELECTED).unlink(missing_ok=True)
    with JsonLinesWriter(place / SELECTED) as writer:
        writer.extend(selected)
    return Analysis(candidates, label_runs, report, selected)


def _warn_of_distractors(report: AnalysisReport, analyst: str) -> None:
    """Say so if a skill that agents hardly ever lack passes all criteria: then labels follow the outcome."""
    for found in report.capabilities:
        if found.selected and found.distractor:
            log.warning(
                "distractor %s passes all criteria (%s): the labels of analyst %r are unreliable, also those of the "
                "selected capabilities: read some of them, then use another analyst or model",
                found.capability.name,
                found.reason,
                analyst,
            )


def graded_trajectories(trajectories: Sequence[Trajectory]) -> tuple[Trajectory, ...]:
    """The graded ones, in the order given. Raises UserError for those that no analysis may read, see ``analyse``."""
    seen: set[str] = set()
    for trajectory in trajectories:
        if trajectory.split != "train":
            raise UserError(f"trajectory {trajectory.id}: split {trajectory.split!r}; analysis may read 'train' only")
        if trajectory.id in seen:
            raise UserError(f"trajectory {trajectory.id}: occurs twice; give every episode an id of its own")
        seen.add(trajectory.id)
    usable = tuple(trajectory for trajectory in trajectories if not trajectory.broken)
    if not usable:
        if not trajectories:
            raise UserError("there is no trajectory: roll out the base agent first")
        raise UserError(
            f"{len(trajectories)} trajectories, none of them graded: mend what broke them, the first by: "
            f"{trajectories[0].error}"
        )
    bases = Counter(trajectory.policy.base for trajectory in usable)
    if len(bases) > 1:
        named = ", ".join(f"{base!r} ({count} trajectories)" for base, count in bases.most_common(3))
        raise UserError(f"trajectories of {len(bases)} base models: {named}: analyse each model on its own")
    passed = sum(trajectory.passed for trajectory in usable)
    if passed in (0, len(usable)):
        log.warning(
            "none of %d graded trajectories %s: nothing can be selected, because failed ones are compared with passed "
            "ones; roll out other or more tasks",
            len(usable),
            "failed" if passed else "passed",
        )
    return usable


def source_of(trajectories: Sequence[Trajectory]) -> Source:
    """What an analysis of ``trajectories`` is made from."""
    lines = [_content(trajectory) + b"\n" for trajectory in trajectories]
    digest, content = (hashlib.sha256(b"".join(found)).hexdigest()[:16] for found in (lines, sorted(lines)))
    return Source(trajectories=len(trajectories), digest=digest, content=content)


def _claim(place: epath.Path, given: Source) -> None:
    """Note in ``place`` what it is made from. Raises UserError if it was made from something else."""
    if (place / SOURCE).exists():
        found = read_document(place / SOURCE, Source)
        if found.given_away != given.given_away:
            raise UserError(
                f"{place}: was told that the tasks {list(found.given_away)} pass if an agent does nothing, now "
                f"{list(given.given_away)}: use a new directory"
            )
        if found != given:
            raise UserError(
                f"{place}: analyses {found.trajectories} trajectories of content {found.digest}, given are "
                f"{given.trajectories} of {given.digest}: use a new directory"
            )
        return
    if (place / CANDIDATES).exists():
        raise UserError(f"{place}: holds {CANDIDATES} but no {SOURCE} to say of what: use a new directory")
    write_document(place / SOURCE, given)


def check_labels(place: epath.Path) -> None:
    """Raise UserError if the label runs in ``place`` are not those of the report there; there may be more by now."""
    if not ((place / REPORT).exists() and (place / RUNS).exists()):
        return
    labels = read_document(place / REPORT, AnalysisReport).labels
    if labels is not None:
        remedy = f"labels were changed after the report: restore the file, or remove it and {REPORT} to label anew"
        check_log(place / RUNS, labels, place / REPORT, remedy)


def _content(trajectory: Trajectory) -> bytes:
    """What an analysis reads of ``trajectory``, as JSON."""
    try:
        return trajectory.model_dump_json(include=_READ).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"trajectory {trajectory.id!r}: cannot be written as JSON ({error}): replace half surrogate pairs in its "
            "texts, and values that are nested too deep"
        ) from None


def _candidates(path: epath.Path, usable: Sequence[Trajectory], analyst: Analyst) -> Candidates:
    if path.exists():
        found = read_document(path, Candidates)
        if found.analyst != analyst.name:
            raise UserError(
                f"{path}: made by analyst {found.analyst!r}, this run uses {analyst.name!r}: use a new directory"
            )
        return found
    found = analyst.discover(usable)
    write_document(path, found)
    return found


def _label_runs(
    path: epath.Path, usable: Sequence[Trajectory], analyst: Analyst, candidates: Candidates, runs: int, seed: int
) -> tuple[LabelRun, ...]:
    done = tuple(read_records(path, LabelRun)) if path.exists() else ()
    for run in done:
        if run.seed != seed or run.run >= runs:
            raise UserError(
                f"{path}: holds run {run.run} of seed {run.seed}; this analysis has {runs} runs of seed {seed}: "
                "use a new directory"
            )
    finished = {run.run for run in done}
    missing = [number for number in range(runs) if number not in finished]
    with JsonLinesWriter(path) as writer:
        if isinstance(analyst, ConcurrentAnalyst):
            found = tuple(analyst.label_runs(usable, candidates, missing, seed)) if missing else ()
            writer.extend(found)
            return tuple(sorted(done + found, key=lambda run: run.run))
        for number in missing:
            run = analyst.label(usable, candidates, number, seed)
            writer.append(run)
            done += (run,)
    return tuple(sorted(done, key=lambda run: run.run))
