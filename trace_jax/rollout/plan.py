"""Which episodes a collection plays."""

from trace_jax.engines.protocol import Sampling
from trace_jax.environments.source import Source
from trace_jax.rollout.agent import EpisodeSpec


def plan_episodes(
    source: Source, trials: int, *, max_turn_tokens: int, temperature: float, seed: int, adapter: str | None = None
) -> list[EpisodeSpec]:
    """``trials`` episodes on each task of ``source``, the sampling seeds a function of ``seed``, task and trial alone.

    Ids do not depend on how many tasks or trials are asked for: asked for more, what was played before stays.
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
            sampling=Sampling(max_turn_tokens, temperature, (seed * 1000 + trial) * 10007 + task),
            adapter=adapter,
        )
        for task in source.tasks
        for trial in range(trials)
    ]
