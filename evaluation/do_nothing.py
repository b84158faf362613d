"""The score of an agent that does nothing: what a target gives away."""

from evaluation.methods import Method, evaluate_methods
from evaluation.report_files import with_episodes
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.storage import PathLike
from trace_jax.environments.source import Source
from trace_jax.errors import UserError
from trace_jax.rollout.nothing import NAME, play_nothing
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings

FILE = "do_nothing.jsonl"
_SHOWN = 8  # tasks that a note names


def play_doing_nothing(
    report: EvaluationReport, source: Source, settings: RolloutSettings, path: PathLike, directory: PathLike
) -> EvaluationReport:
    """The ``report`` in ``directory`` with the score of an agent that answers all messages with empty ones.

    Each task is played once, until it is done or ``settings.max_turns`` are over. The episodes are appended to the log
    ``path``, and those that it already holds are not played again. If all of them broke, a note says so.
    """
    recording = Recording(path)
    try:
        played = evaluate_methods(
            [Method(NAME, 0.0, lambda _: None, 0)],
            source,
            1,
            lambda specs: play_nothing(specs, recording, settings),
            max_tokens=1,
        ).report.methods[0]
    except UserError as error:
        return report.replace(notes={**report.notes, "do_nothing": str(error)})
    report = with_episodes(report.replace(do_nothing=played), path, directory)
    if free := report.passed_by_doing_nothing:
        names = ", ".join(free[:_SHOWN]) + (f" and {len(free) - _SHOWN} more" if len(free) > _SHOWN else "")
        note = f"{len(free)} of {len(report.tasks)} tasks pass if the agent does nothing: {names}"
        report = report.replace(notes={**report.notes, "do_nothing": note})
    return report
