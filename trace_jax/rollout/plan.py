"""Which episodes a collection plays."""

from trace_jax.engines.protocol import Sampling
from trace_jax.environments.protocol import seed_of
from trace_jax.environments.source import Source
from trace_jax.rollout.agent import EpisodeSpec
from trace_jax.rollout.settings import RolloutSettings


def plan_episodes(
    source: Source, settings: RolloutSettings, *, seed: int, adapter: str | None = None
) -> list[EpisodeSpec]:
    """``settings.trials`` episodes on each task of ``source``.

    An episode's id depends on adapter, source, task and trial alone, and its sampling seed on ``seed``, task and trial
    alone. More tasks or trials therefore add episodes, and leave the recorded ones as they are.
    """
    return [
        EpisodeSpec(
            id=f"{adapter or 'base'}/{source.name}/{source.split}/{task}/{trial}",
            environment=source.environment,
            target=source.target,
            task=str(task),
            split=source.split,
            seed=task,
            trial=trial,
            sampling=Sampling(
                settings.max_turn_tokens, settings.temperature, (seed * 1000 + trial) * 10007 + seed_of(task)
            ),
            adapter=adapter,
        )
        for task in source.tasks
        for trial in range(settings.trials)
    ]
