"""Many episodes at a time, until all have ended (``collect``) or while their caller does other work (``Player``)."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.protocol import Engine
from trace_jax.parallel.termination import Termination
from trace_jax.rollout.agent import EpisodeSpec, Limits, run_episode

T = TypeVar("T")
Episode = asyncio.Task[Trajectory]


class Player:
    """Plays episodes, at most ``concurrency`` at a time, in the order in which they were started.

    All happens in the caller's thread, in one event loop that runs while a method waits, and stands still otherwise:
    what is done between two calls no episode interrupts. On the main thread environments that hang are interrupted,
    and ``termination`` ends ``wait``.

        with Player(engine, renderer, limits, base) as player:
            episodes = player.start(specs)
            loss = player.beside(update)  # the episodes go on meanwhile
            done, _ = player.wait(lambda: asyncio.wait(episodes))
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        limits: Limits,
        base: str,
        concurrency: int = 64,
        termination: Termination | None = None,
    ) -> None:
        self._engine, self._renderer, self._limits, self._base = engine, renderer, limits, base
        self._termination = termination
        self._seats = asyncio.Semaphore(concurrency)
        self._runner = asyncio.Runner()

    def start(
        self, specs: Sequence[EpisodeSpec], on_episode: Callable[[Trajectory], None] | None = None
    ) -> list[Episode]:
        """Begin to play, as soon as the loop runs and there are seats.

        ``on_episode`` is called as each one ends; what it raises is what the episode ends with.
        """
        return [self._runner.get_loop().create_task(self._play(spec, on_episode)) for spec in specs]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns; all that is in flight goes on until it does."""
        return self._runner.run(work)

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """As ``run``, for what may be given up: SIGTERM ends it at once, or before it begins, with Terminated."""
        with nullcontext() if self._termination is None else self._termination.interruptible():
            return self.run(work())

    def beside(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, called in another thread; all that is in flight goes on until it does."""
        return self.run(asyncio.to_thread(work))

    def give_up(self, episodes: Sequence[Episode]) -> None:
        """End episodes, wherever they are; those that have ended stay as they are."""

        async def end() -> None:
            for episode in episodes:
                episode.cancel()
            await asyncio.gather(*episodes, return_exceptions=True)

        self.run(end())

    async def _play(self, spec: EpisodeSpec, on_episode: Callable[[Trajectory], None] | None) -> Trajectory:
        async with self._seats:
            trajectory = await run_episode(spec, self._engine, self._renderer, self._limits, self._base)
        if on_episode is not None:
            on_episode(trajectory)
        return trajectory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is in flight, and wait for what ``beside`` began."""
        self._runner.close()


def collect(
    specs: Sequence[EpisodeSpec],
    engine: Engine,
    renderer: Renderer,
    limits: Limits,
    base: str,
    concurrency: int = 64,
    on_episode: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """All episodes, at most ``concurrency`` at a time, in the order of ``specs``.

    ``on_episode`` is called as each one ends; what it raises stops the collection, and so does EngineGone.
    """
    with Player(engine, renderer, limits, base, concurrency) as player:
        episodes = player.start(specs, on_episode)

        async def all_ended() -> list[Trajectory]:
            return await asyncio.gather(*episodes)

        return player.run(all_ended())
