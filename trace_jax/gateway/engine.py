"""The embedded engine in a thread of its own, so that the event loop never waits for one of its steps."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling

T = TypeVar("T")


@dataclass(frozen=True)
class Sampled:
    """More tokens of a completion. The last one says how it ended."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"] | None = None


class EngineThread:
    """Runs ``engine`` while the context is open. All methods are called from one other event loop."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs, so that nobody waits for it, and end the thread."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def stream(
        self, prompt: tuple[int, ...], sampling: Sampling, adapter: str | None
    ) -> AsyncGenerator[Sampled, None]:
        """The completion as it is sampled; leaving early frees its slot in the engine. Raises EngineError."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Sampled | None] = asyncio.Queue()

        def on_tokens(tokens: list[int], logprobs: list[float]) -> None:  # in the engine's thread
            loop.call_soon_threadsafe(arrived.put_nowait, Sampled(tuple(tokens), tuple(logprobs)))

        done = asyncio.ensure_future(self._run(self._engine.generate(prompt, sampling, adapter, on_tokens=on_tokens)))
        done.add_done_callback(lambda _: arrived.put_nowait(None))
        try:
            while (sampled := await arrived.get()) is not None:
                yield sampled
            yield Sampled((), (), (await done).finish_reason)
        finally:
            done.cancel()

    async def load_adapter(self, name: str, directory: Path) -> None:
        """As the engine's own. Raises EngineError."""
        await self._run(self._engine.load_adapter(name, directory))

    async def unload_adapter(self, name: str) -> None:
        """As the engine's own. Raises EngineError."""
        await self._run(self._engine.unload_adapter(name))

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


async def _cancel_others() -> None:
    """Cancel all other tasks of the running loop, and await their ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
