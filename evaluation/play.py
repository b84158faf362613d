"""Plays the episodes of several methods on one engine. Each is recorded as it ends, so an evaluation can be resumed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from etils import epath

from evaluation.do_nothing import FILE as NOTHING
from evaluation.do_nothing import play_doing_nothing
from evaluation.methods import Evaluation, Method, evaluate_methods, plan_episodes
from evaluation.report_files import with_episodes
from trace_jax.contract.storage import PathLike
from trace_jax.environments.protocol import Task
from trace_jax.environments.source import Source
from trace_jax.rollout.recording import Recording
from trace_jax.run_settings import RunSettings
from trace_jax.telemetry.progress import Progress

if TYPE_CHECKING:  # JAX is slow to import, and --help needs none
    from trace_jax.models.lora import LoRA
    from trace_jax.session import Base, EndpointSession, Session


def always(adapter: str | None) -> Callable[[Task], str | None]:
    """The same adapter for every task."""
    return lambda _: adapter


def temperatures(
    settings: RunSettings, name: str, adapter_for: Callable[[Task], str | None], spent: int
) -> list[Method]:
    """A method played greedily and at the evaluation's temperature."""
    both = dict.fromkeys((0.0, settings.evaluation.temperature))
    return [Method(name, temperature, adapter_for, spent) for temperature in both]


def play(
    settings: RunSettings,
    base: "Base | None",
    source: Source,
    loras: Mapping[str, "LoRA"],
    methods: Sequence[Method],
    *,
    trials: int,
    progress: Progress,
    label: str,
    path: PathLike,
    nothing: PathLike | None = None,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """``evaluate_methods`` with an engine that holds ``loras``, and a progress bar called ``label``.

    Without a ``base`` the endpoint of the settings plays, which takes no adapters.

    Episodes are appended to ``path`` as they end. Graded episodes that ``path`` already holds are not played again;
    call ``open_workdir`` before, which ensures that they belong to the same base, adapters and settings. The score of
    doing nothing is added, unless ``evaluation.do_nothing`` is off. Its episodes are in the log ``nothing``, by default
    in ``do_nothing.jsonl`` in the directory of ``path``. The report belongs into that directory.
    """
    from trace_jax.session import open_endpoint, serve

    directory = epath.Path(path).parent
    recording, total = Recording(path), len(plan_episodes(methods, source.tasks, trials))
    graded = sum(not episode.broken for episode in recording.episodes.values())
    opened: AbstractContextManager[Session | EndpointSession] = (
        nullcontext(open_endpoint(settings)) if base is None else serve(settings, base, loras, directory / "published")
    )
    with (
        opened as session,
        progress.stage(label, total, graded) as bar,
    ):
        evaluation = evaluate_methods(
            methods,
            source,
            trials,
            lambda specs: session.play(specs, recording, bar.episode),
            max_tokens=settings.rollout.max_turn_tokens,
            seed=settings.seed,
            baselines=baselines,
        )
    report = with_episodes(evaluation.report, path, directory)
    if settings.evaluation.do_nothing:
        report = play_doing_nothing(report, source, settings.rollout, nothing or directory / NOTHING, directory)
    return replace(evaluation, report=report)
