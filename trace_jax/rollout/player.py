"""Plays many episodes at a time, until all have ended (``collect``) or while the caller works (``Player``)."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.chat import ChatEngine
from trace_jax.engines.protocol import Engine
from trace_jax.parallel.termination import Termination
from trace_jax.rollout.agent import run_episode
from trace_jax.rollout.chat_episode import run_chat_episode
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec

T = TypeVar("T")
EpisodeTask = asyncio.Task[Trajectory]


class Player:
    """Plays episodes, at most ``settings.concurrency`` at a time, in the order in which they were started.

    Everything happens in the caller's thread, in one event loop. The loop runs while a method of the player waits, and
    stands still otherwise: no episode advances between two calls. On the main thread, environments that hang are
    interrupted, and ``termination`` ends ``wait``. ``renderer`` is None for a chat engine.

        with Player(engine=engine, renderer=renderer, settings=settings, base=base) as player:
            tasks = player.start(specs)
            loss = player.run_in_thread(update)  # the episodes go on meanwhile
            done, _ = player.wait(lambda: asyncio.wait(tasks))
    """

    def __init__(
        self,
        *,
        engine: Engine | ChatEngine,
        renderer: Renderer | None,
        settings: RolloutSettings,
        base: str,
        termination: Termination | None = None,
    ) -> None:
        self._engine, self._renderer, self._settings, self._base = engine, renderer, settings, base
        self._termination = termination
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._runner = asyncio.Runner()

    def start(
        self, specs: Sequence[EpisodeSpec], on_episode: Callable[[Trajectory], None] | None = None
    ) -> list[EpisodeTask]:
        """Start a task for each episode. It plays as soon as the loop runs and a slot is free.

        ``on_episode`` is called as each episode ends. If it raises, the task ends with that error.
        """
        return [self._runner.get_loop().create_task(self._play(spec, on_episode)) for spec in specs]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. All started episodes go on until then.

        A signal's KeyboardInterrupt is raised where it meets the main thread, maybe within an episode. ``work`` has
        ended then as well, so that it does not raise the episode's interruption again while the caller cleans up.
        """
        loop = self._runner.get_loop()
        task = loop.create_task(work)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            _end(loop, task)
            raise

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """``run``, which SIGTERM may interrupt: it then raises Terminated, at once or before the work begins."""
        with nullcontext() if self._termination is None else self._termination.interruptible():
            return self.run(work())

    def run_in_thread(self, work: Callable[[], T]) -> T:
        """The result of ``work``, called in another thread. All started episodes go on until then."""
        return self.run(asyncio.to_thread(work))

    def cancel(self, tasks: Sequence[EpisodeTask]) -> None:
        """Cancel episodes. Those that have ended stay as they are."""

        async def cancel() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel())

    async def _play(self, spec: EpisodeSpec, on_episode: Callable[[Trajectory], None] | None) -> Trajectory:
        async with self._slots:
            trajectory = await self._run_episode(spec)
        if on_episode is not None:
            on_episode(trajectory)
        return trajectory

    async def _run_episode(self, spec: EpisodeSpec) -> Trajectory:
        engine, renderer = self._engine, self._renderer
        if isinstance(engine, ChatEngine):
            return await run_chat_episode(spec, engine=engine, settings=self._settings)
        assert renderer is not None, "only the chat engine does without one"
        return await run_episode(spec, engine=engine, renderer=renderer, settings=self._settings, base=self._base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel all episodes, and wait for the work of ``run_in_thread``."""
        self._runner.close()


def _end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and run ``loop`` until it has ended, whatever it raises."""
    task.cancel()
    while not task.done():
        with suppress(KeyboardInterrupt):  # the episode's, once more
            loop.run_until_complete(asyncio.wait([task]))
    if not task.cancelled():
        task.exception()  # asyncio writes the traceback of an exception that nobody has looked at


def collect(
    specs: Sequence[EpisodeSpec],
    *,
    engine: Engine | ChatEngine,
    renderer: Renderer | None,
    settings: RolloutSettings,
    base: str,
    on_episode: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play all episodes, at most ``settings.concurrency`` at a time. Returns them in the order of ``specs``.

    ``on_episode`` is called as each episode ends. An error of it ends the collection, and so does EngineGone.
    """
    with Player(engine=engine, renderer=renderer, settings=settings, base=base) as player:
        tasks = player.start(specs, on_episode)

        async def all_ended() -> list[Trajectory]:
            return await asyncio.gather(*tasks)

        return player.run(all_ended())
