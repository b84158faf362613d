"""Episodes that are kept on disk as they end; one that is graded is never played again."""

from collections.abc import Callable, Sequence

from etils import epath

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.protocol import Engine
from trace_jax.rollout.agent import EpisodeSpec, Limits
from trace_jax.rollout.player import collect

# After a resume an episode shares the engine's batch with other episodes than it would have had, and sums are rounded
# otherwise. Its tokens and reward are those of an uninterrupted run; its log-probabilities differ by at most this bound
# in nats (float32). Measured: 4e-7, and 2e-6 with another number of slots.
LOGPROB_BOUND = 1e-5


class Recording:
    """The trajectories in the JSON Lines at ``path``, by id; there may be none yet.

    Those that broke are missing: what broke them may have been mended since, so every start plays them once more. With
    ``keep_broken`` they are not, for what others have read already. That all are of the same base, adapters and
    settings is the caller's to see to (``open_workdir``).
    """

    def __init__(self, path: PathLike, keep_broken: bool = False) -> None:
        self.path, self._keep_broken = path, keep_broken
        there = read_episodes(path) if epath.Path(path).exists() else ()
        self.episodes = {trajectory.id: trajectory for trajectory in there}

    def missing(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
        """Those that are still to be played."""
        settled = {name for name, one in self.episodes.items() if self._keep_broken or not one.broken}
        return [spec for spec in specs if spec.id not in settled]

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
