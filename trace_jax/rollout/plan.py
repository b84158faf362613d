"""Which episodes a collection plays."""

from trace_jax.engines.protocol import Sampling
from trace_jax.environments.protocol import Task, seed_of
from trace_jax.environments.source import Source
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec


def plan_episodes(
    source: Source, settings: RolloutSettings, *, seed: int, adapter: str | None = None
) -> list[EpisodeSpec]:
    """``settings.trials`` episodes on each task of ``source``.

    An episode's id depends on adapter, source, task and trial alone, and its sampling seed on ``seed``, task and trial
    alone. More tasks or trials therefore add episodes, and leave the recorded ones as they are.
    """
    return [
        episode_spec(
            source,
            task,
            id=f"{adapter or 'base'}/{source.name}/{source.split}/{task}/{trial}",
            trial=trial,
            sampling=Sampling(
                settings.max_turn_tokens, settings.temperature, (seed * 1000 + trial) * 10007 + seed_of(task)
            ),
            adapter=adapter,
        )
        for task in source.tasks
        for trial in range(settings.trials)
    ]


def episode_spec(
    source: Source, task: Task, *, id: str, trial: int, sampling: Sampling, adapter: str | None = None
) -> EpisodeSpec:
    """One episode on ``task`` of ``source``."""
    return EpisodeSpec(
        id=id,
        host=source.host,
        target=source.target,
        task=str(task),
        split=source.split,
        seed=task,
        trial=trial,
        sampling=sampling,
        adapter=adapter,
    )
