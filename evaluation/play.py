"""Episodes of several methods on one engine, kept as they end, so that an interrupted evaluation goes on."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from etils import epath
from ml_collections import ConfigDict

from evaluation.methods import Evaluation, Method, evaluate_methods, plan_episodes
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Split
from trace_jax.environments.protocol import Target
from trace_jax.models.lora import LoRA
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.session import Base, read_settings, serve
from trace_jax.telemetry.progress import Progress


def always(adapter: str | None) -> Callable[[int], str | None]:
    """The same adapter for every task."""
    return lambda _: adapter


def temperatures(config: ConfigDict, name: str, adapter_for: Callable[[int], str | None], spent: int) -> list[Method]:
    """A method played greedily and at the evaluation's temperature."""
    both = dict.fromkeys((0.0, float(config.evaluation.temperature)))
    return [Method(name, temperature, adapter_for, spent) for temperature in both]


def play(
    config: ConfigDict,
    base: Base,
    target: Target,
    split: Split,
    tasks: Sequence[int],
    loras: Mapping[str, LoRA],
    methods: Sequence[Method],
    trials: int,
    progress: Progress,
    label: str,
    path: PathLike,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """``evaluate_methods`` with an engine that holds ``loras``, under a progress bar called ``label``.

    Episodes are appended to ``path`` as they end; those that it holds already, graded, are not played again. That they
    are of the same base, adapters and configuration is the caller's to see to (``open_workdir``).
    """
    recording, total = Recording(path), len(plan_episodes(methods, tasks, trials))
    graded = sum(not one.broken for one in recording.episodes.values())
    with (
        serve(config, base, loras, epath.Path(path).parent / "published") as engine,
        progress.stage(label, total, graded) as bar,
    ):
        return evaluate_methods(
            methods,
            target,
            split,
            tasks,
            trials,
            partial(
                recording.collect,
                engine=engine,
                renderer=base.renderer,
                settings=read_settings(config, RolloutSettings),
                base=base.revision,
                on_episode=bar.episode,
            ),
            max_tokens=config.rollout.max_turn_tokens,
            seed=config.seed,
            baselines=baselines,
        )
