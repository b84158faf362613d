"""Episodes that are written to disk as they end. An episode that was graded is never played again."""

from collections.abc import Callable, Sequence

from etils import epath

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.chat import ChatEngine
from trace_jax.engines.protocol import Engine
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec

# After a resume an episode shares the engine's batch with other episodes than it would have had, and sums are rounded
# otherwise. Its tokens and reward are those of an uninterrupted run; its log-probabilities differ by at most this bound
# in nats (float32). Measured: 4e-7, and 2e-6 with another number of slots.
LOGPROB_BOUND = 1e-5


class Recording:
    """The trajectories in the JSON Lines file ``path``, by id. The file need not exist yet.

    Broken episodes count as missing: their cause may have been removed, so every start plays them again. With
    ``keep_broken`` they do not, for a file that a later stage has already read. The caller makes sure that all episodes
    are of the same base, adapters and settings (``open_workdir``).
    """

    def __init__(self, path: PathLike, keep_broken: bool = False) -> None:
        self.path, self._keep_broken = path, keep_broken
        recorded = read_episodes(path) if epath.Path(path).exists() else ()
        self.episodes = {trajectory.id: trajectory for trajectory in recorded}

    def missing(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
        """The episodes that still have to be played."""
        kept = {name for name, episode in self.episodes.items() if self._keep_broken or not episode.broken}
        return [spec for spec in specs if spec.id not in kept]

    def collect(
        self,
        specs: Sequence[EpisodeSpec],
        *,
        engine: Engine | ChatEngine,
        renderer: Renderer | None,
        settings: RolloutSettings,
        base: str,
        on_episode: Callable[[Trajectory], None],
    ) -> list[Trajectory]:
        """The episodes of ``specs``, in their order.

        Missing episodes are played. As each of them ends, it is written to the file, and ``on_episode`` is called.
        """
        with JsonLinesWriter(self.path) as writer:

            def record(trajectory: Trajectory) -> None:
                writer.append(trajectory)
                self.episodes[trajectory.id] = trajectory
                on_episode(trajectory)

            missing = self.missing(specs)
            collect(missing, engine=engine, renderer=renderer, settings=settings, base=base, on_episode=record)
        return [self.episodes[spec.id] for spec in specs]
