"""The router, asked from the event loop: requests that wait are decided together, in a thread. Decisions are logged."""

import asyncio
import logging
from collections.abc import Sequence

from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.storage import PathLike
from trace_jax.engines.sglang.server import OUTAGES
from trace_jax.errors import TraceError
from trace_jax.gateway.errors import frames
from trace_jax.routing.router import Router, RouteRequest

logger = logging.getLogger(__name__)

_BATCH = 16  # requests decided at a time: the rows of a reader's forward pass


class RouterFailed(TraceError):
    """The router raised an error of the program, which is in the log. The base serves the conversation."""


class Decider:
    """Asks the router, one batch at a time."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._waiting: list[tuple[RouteRequest, asyncio.Future[RouteDecision]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def decide(self, request: RouteRequest) -> RouteDecision:
        """The decision for one conversation.

        Raises RouterFailed, and EngineGone or ServerFailed if the router's servers do not answer.
        """
        future: asyncio.Future[RouteDecision] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            try:
                decisions = await asyncio.to_thread(self._decide, [request for request, _ in batch])
            except (RouterFailed, *OUTAGES) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), decision in zip(batch, decisions, strict=True):
                if not future.done():  # its client may have left
                    future.set_result(decision)

    def _decide(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        try:
            return self._router.decide_batch(requests)
        except OUTAGES:
            raise
        except Exception as error:
            name = type(error).__name__
            logger.error("%s in the router; %d go to the base:\n%s", name, len(requests), frames(error))
            raise RouterFailed(f"router error: {name}") from None


class DecisionLog:
    """Appends decisions to the JSON Lines at ``path`` in a thread. Those that have come meanwhile are one write."""

    def __init__(self, path: PathLike) -> None:
        self._writer = JsonLinesWriter(path)
        self._waiting: list[RouteDecision] = []
        self._worker: asyncio.Task[None] | None = None

    def write(self, decision: RouteDecision) -> None:
        """Have ``decision`` written soon."""
        self._waiting.append(decision)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._writer.extend, batch)
            except OSError as error:  # conversations go on without their log
                logger.error("%d route decisions could not be written: %s", len(batch), error)

    async def close(self) -> None:
        """Write all decisions that wait, and release the file."""
        if self._worker is not None:
            await self._worker
        self._writer.close()
