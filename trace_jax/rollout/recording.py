"""Episodes that are kept on disk as they end, and never played twice."""

from collections.abc import Callable, Sequence

from etils import epath

from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.rollout.agent import EpisodeSpec, Limits
from trace_jax.rollout.chat import Renderer
from trace_jax.rollout.engine import Engine
from trace_jax.rollout.player import collect


class Recording:
    """The trajectories in the JSON Lines at ``path``, by id; there may be none yet.

    That they are of the same base, adapters and settings is the caller's to see to (``open_workdir``).
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path
        there = read_records(path, Trajectory) if epath.Path(path).exists() else ()
        self.episodes = {trajectory.id: trajectory for trajectory in there}

    def missing(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
        """Those that are not recorded yet."""
        return [spec for spec in specs if spec.id not in self.episodes]

    def collect(
        self,
        specs: Sequence[EpisodeSpec],
        engine: Engine,
        renderer: Renderer,
        limits: Limits,
        base: str,
        concurrency: int,
        on_episode: Callable[[Trajectory], None],
    ) -> list[Trajectory]:
        """The episodes of ``specs`` in their order: missing ones are played, recorded as they end, and told."""
        with JsonLinesWriter(self.path) as writer:

            def keep(trajectory: Trajectory) -> None:
                writer.append(trajectory)
                self.episodes[trajectory.id] = trajectory
                on_episode(trajectory)

            collect(self.missing(specs), engine, renderer, limits, base, concurrency, keep)
        return [self.episodes[spec.id] for spec in specs]
