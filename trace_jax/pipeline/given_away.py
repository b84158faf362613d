"""The tasks that a target gives away: an agent passes them that does nothing."""

from trace_jax.contract.storage import PathLike
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.protocol import GivesAway, Target
from trace_jax.environments.source import Source
from trace_jax.rollout.nothing import play_nothing
from trace_jax.rollout.plan import episode_spec
from trace_jax.rollout.recording import Recording
from trace_jax.run_settings import RunSettings


def given_away(
    target: Target, source: Source, settings: RunSettings, path: PathLike, *, keep_broken: bool
) -> frozenset[str]:
    """The names of these tasks of ``source``: as ``target`` knows them, else as they are played.

    Each task is played once, and recorded in ``path`` as ``Recording`` does, unless ``evaluation.do_nothing`` is off.
    Raises UserError if a target in a worker tells what are no tasks.
    """
    known = target.do_nothing(source.split) if isinstance(target, GivesAway) else None
    if known is not None:
        return frozenset(map(str, known)) & frozenset(map(str, source.tasks))
    if not settings.evaluation.do_nothing:
        return frozenset()
    sampling = Sampling(max_tokens=1, temperature=0.0, seed=0)
    specs = [
        episode_spec(source, task, id=f"nothing/{source.name}/{source.split}/{task}", trial=0, sampling=sampling)
        for task in source.tasks
    ]
    played = play_nothing(specs, Recording(path, keep_broken), settings.rollout)
    return frozenset(episode.task for episode in played if episode.passed)
