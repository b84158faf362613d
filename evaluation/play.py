"""Plays the episodes of several methods on one engine. Each is recorded as it ends, so an evaluation can be resumed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from etils import epath

from evaluation.methods import Evaluation, Method, evaluate_methods, plan_episodes
from evaluation.report_files import with_episodes
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Split
from trace_jax.environments.protocol import Target, Task
from trace_jax.models.lora import LoRA
from trace_jax.rollout.recording import Recording
from trace_jax.run_settings import RunSettings
from trace_jax.session import Base, serve
from trace_jax.telemetry.progress import Progress


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
    base: Base,
    target: Target,
    split: Split,
    tasks: Sequence[Task],
    loras: Mapping[str, LoRA],
    methods: Sequence[Method],
    *,
    trials: int,
    progress: Progress,
    label: str,
    path: PathLike,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """``evaluate_methods`` with an engine that holds ``loras``, and a progress bar called ``label``.

    Episodes are appended to ``path`` as they end. Graded episodes that ``path`` already holds are not played again;
    call ``open_workdir`` before, which ensures that they belong to the same base, adapters and settings.
    """
    recording, total = Recording(path), len(plan_episodes(methods, tasks, trials))
    graded = sum(not episode.broken for episode in recording.episodes.values())
    with (
        serve(settings, base, loras, epath.Path(path).parent / "published") as session,
        progress.stage(label, total, graded) as bar,
    ):
        evaluation = evaluate_methods(
            methods,
            target,
            split,
            tasks,
            trials,
            lambda specs: session.play(specs, recording, bar.episode),
            max_tokens=settings.rollout.max_turn_tokens,
            seed=settings.seed,
            baselines=baselines,
        )
    return replace(evaluation, report=with_episodes(evaluation.report, path))
