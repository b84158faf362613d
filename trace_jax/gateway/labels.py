"""The classifier's reader on servers that hold the base, so that no second copy of the model is needed."""

import asyncio
from collections.abc import Sequence

import numpy as np

from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.server import SGLangServer
from trace_jax.errors import UserError


class ServerReader:
    """A ``LabelReader`` for threads other than that of ``loop``, the event loop in which the servers are asked.

    Args:
        context: tokens of prompt and completion together that each server takes.
    """

    def __init__(self, engine: SGLangEngine, context: int, loop: asyncio.AbstractEventLoop) -> None:
        self._engine, self._context, self._loop = engine, context, loop

    def check_length(self, prompt: Sequence[int]) -> None:
        if not 0 < len(prompt) < self._context:
            raise UserError(f"prompt of {len(prompt)} tokens; servers read 1 to {self._context - 1}: shorten it")

    def next_logprobs(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> np.ndarray:
        """``[N, C]`` float32, from one request to one server. Raises EngineError."""

        async def ask(server: SGLangServer, _: str | None) -> np.ndarray:
            return await server.next_logprobs(prompts, token_ids)

        async def read() -> np.ndarray:
            async with self._engine.response(ask) as found:
                return found

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result()
