"""Scores what is given on a target, in a work directory that belongs to exactly that."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from evaluation.methods import Method
from evaluation.models import Models
from evaluation.play import play
from evaluation.report_files import read_report
from evaluation.subjects import BASE, Subject
from trace_jax.contract.digest import digest_of
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Split
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.source import Source, target_source
from trace_jax.errors import UserError
from trace_jax.run_settings import RunSettings
from trace_jax.telemetry.progress import Progress

REPORT, TRAJECTORIES = "evaluation.json", "trajectories.jsonl"

# The sections that a score depends on, and the settings in them that it does not depend on.
_SECTIONS = ("target", "base", "engine", "rollout", "routing", "evaluation")
_FREE = {
    "base": ("path",),  # its revision counts
    "engine": ("slots", "capacity"),
    "rollout": ("trials", "temperature", "concurrency"),
    "routing": ("router", "prompts", "minimum_weight"),
}


def source_of(settings: RunSettings, split: Split) -> Source:
    """The tasks of ``split`` that the settings use."""
    target = settings.target
    return target_source(open_target(target), target.environment, split, target.tasks(split))


def score(
    models: Models,
    source: Source,
    subjects: Sequence[Subject],
    temperatures: Sequence[float],
    workdir: epath.Path,
    *,
    progress: Progress,
    label: str = "evaluate",
    nothing: epath.Path | None = None,
) -> EvaluationReport:
    """Score every subject at every temperature, with the trials that the settings of ``models`` say.

    Episodes are written to ``trajectories.jsonl`` as they end, then the report to ``evaluation.json``. A work directory
    that holds the report already gives it back, without a model. ``nothing`` is the log of the agent that does nothing,
    by default one in the work directory. The ``rollouts_spent`` of an adapter are the rollouts
    of its training. A routed method adds the rollouts that its table records; the pipeline records those of analysis
    and calibration.

    Raises UserError for a subject that cannot be scored, for a work directory of other settings, models or tasks (the
    message names what differs), and for a report whose episodes were changed.
    """
    names = [subject.name for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two methods are called {twice[0]!r}: give each a name of its own, or leave one out")
    identity = _identity(models, source, subjects, temperatures)
    if (workdir / REPORT).exists():
        open_workdir(workdir, identity)
        return read_report(workdir / REPORT)
    models.forget()
    methods = []
    for subject in subjects:
        adapter_for, spent = subject.prepare(models, source)
        methods += [Method(subject.name, temperature, adapter_for, spent) for temperature in temperatures]
    open_workdir(workdir, identity)  # it belongs to them from now on
    report = play(
        models.settings,
        None if models.is_endpoint else models.base,
        source,
        models.loras,
        methods,
        trials=models.settings.evaluation.trials,
        progress=progress,
        label=label,
        path=workdir / TRAJECTORIES,
        nothing=nothing,
        baselines=[BASE] if BASE in names else [],
    ).report
    write_document(workdir / REPORT, report)
    return report


def settings_identity(settings: RunSettings, split: Split) -> dict[str, Any]:
    """The settings on which a score depends. Where servers are, and how much runs at a time, may change."""
    found = {name: value for name, value in settings.identity().items() if name in _SECTIONS}
    for section, names in _FREE.items():
        found[section] = {name: value for name, value in found[section].items() if name not in names}
    del found["target"]["train_tasks" if split == "held_out" else "held_out_tasks"]
    return {**found, "seed": settings.seed, "split": split}


def _identity(
    models: Models, source: Source, subjects: Sequence[Subject], temperatures: Sequence[float]
) -> dict[str, Any]:
    """What a score belongs to."""
    return {
        **settings_identity(models.settings, source.split),
        "tasks": digest_of({"tasks": [str(task) for task in source.tasks]})[:16],
        "base_revision": models.revision,
        "temperatures": list(temperatures),
        "methods": {subject.name: subject.content() for subject in subjects},
    }
