"""The same for code that cannot await, such as the step of an environment."""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from trace_jax.llm.answer import Answer
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.settings import LanguageModelSettings, check_endpoint
from trace_jax.llm.spending import Spending


class BlockingLanguageModel:
    """A ``LanguageModel`` whose calls block their thread, inside a running event loop as well.

    The requests run in one background thread of the process. Users of equal ``settings`` share the connections and the
    bound on requests in flight, so make as many as you like: ``BlockingLanguageModel(settings)``.
    """

    def __init__(self, settings: LanguageModelSettings) -> None:
        check_endpoint(settings.url, settings.model, settings.section)
        self.settings, self._model = settings, _shared(settings)

    @property
    def spending(self) -> Spending:
        """Totals of this process for ``settings``."""
        return self._model.spending

    def complete(self, messages: Sequence[Mapping[str, Any]], *, seed: int | None = None) -> Answer:
        """As ``LanguageModel.complete``. What interrupts the wait, such as a deadline, ends the request as well."""
        future = asyncio.run_coroutine_threadsafe(self._model.complete(messages, seed=seed), _background())
        try:
            return future.result()
        finally:
            future.cancel()


@cache
def _shared(settings: LanguageModelSettings) -> LanguageModel:
    return LanguageModel(settings)


_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork copies the dictionary, but not the thread
_LOCK = threading.Lock()


def _background() -> asyncio.AbstractEventLoop:
    """The event loop of the background thread, which ends with the process."""
    with _LOCK:
        if (process := os.getpid()) not in _LOOPS:
            loop = _LOOPS[process] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="language-models", daemon=True).start()
        return _LOOPS[process]
