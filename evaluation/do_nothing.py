"""The score of an agent that does nothing: what a target gives away. It needs no model."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.methods import Method, evaluate_methods
from evaluation.report_files import with_episodes
from trace_jax.chat.renderer import NoThinking
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.source import Source
from trace_jax.errors import EngineError, UserError
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings

NAME, FILE = "do nothing", "do_nothing.jsonl"
_NOTHING = 0  # the only token there is
_SHOWN = 8  # tasks that a note names


class _Renderer(NoThinking):
    """Every conversation is one token, and every turn an empty message."""

    stop_token_ids: tuple[int, ...] = (_NOTHING,)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        return (_NOTHING,)

    def assistant(self, message: Message) -> tuple[int, ...]:
        return (_NOTHING,)

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        return ()

    def parse(self, token_ids: Sequence[int]) -> Message:
        return Message(role="assistant", content="")


class _Engine:
    """Ends every turn at once."""

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        return Completion((_NOTHING,), (0.0,), "stop")

    async def load_adapter(self, name: str, path: Path) -> None:
        raise EngineError(f"adapter {name!r}: an agent that does nothing has none")

    async def unload_adapter(self, name: str) -> None:
        raise EngineError(f"adapter {name!r}: an agent that does nothing has none")

    async def health(self) -> bool:
        return True


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
            lambda specs: recording.collect(
                specs, engine=_Engine(), renderer=_Renderer(), settings=settings, base=NAME, on_episode=lambda _: None
            ),
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
