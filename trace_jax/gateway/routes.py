"""From a request to the adapters that serve it: decided once, at the first request of its conversation."""

import time
from collections.abc import Mapping

from trace_jax.contract.routing import RouteDecision
from trace_jax.engines.sglang.server import OUTAGES
from trace_jax.errors import TraceError, UserError
from trace_jax.gateway.adapters import Adapters
from trace_jax.gateway.decisions import Decider, DecisionLog, RouterFailed
from trace_jax.gateway.messages import conversation
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import BASE
from trace_jax.gateway.pinning import HEADER, Pins
from trace_jax.gateway.request import CompletionRequest, opening
from trace_jax.routing.router import Router, RouteRequest
from trace_jax.routing.select import undecided


def label(parts: Mapping[str, float]) -> str:
    """What serves, as clients see it: ``base``, an adapter's name, or ``0.700000*a+0.300000*b``."""
    if not parts:
        return BASE
    if list(parts.values()) == [1.0]:
        return next(iter(parts))
    return "+".join(f"{weight:.6f}*{name}" for name, weight in sorted(parts.items()))


class Conversations:
    """Decides on each conversation once.

    The base serves a conversation that cannot be decided, or whose adapter cannot be made or loaded; these are counted.
    """

    def __init__(self, router: Router, adapters: Adapters, pins: Pins, log: DecisionLog, metrics: Metrics) -> None:
        self._kind, self._decider = router.kind, Decider(router)
        self._adapters, self._pins, self._log, self._metrics = adapters, pins, log, metrics

    async def decision(self, request: CompletionRequest, key: str) -> RouteDecision:
        """The decision of the conversation ``key``, which ``request`` belongs to. Raises EngineGone or ServerFailed."""
        return await self._pins.get(key, lambda: self._decide(request, key))

    async def _decide(self, request: CompletionRequest, key: str) -> RouteDecision:
        started = time.perf_counter()
        decision = await self._with_adapter(await self._routed(request, key))
        self._metrics.routing_seconds.observe(time.perf_counter() - started)
        self._metrics.decisions.labels("merged" if len(decision.adapters) > 1 else label(decision.adapters)).inc()
        self._log.write(decision)
        return decision

    async def _routed(self, request: CompletionRequest, key: str) -> RouteDecision:
        cause = "undecided"
        try:
            messages, tools = conversation(request if HEADER in request.headers else opening(request))
            decision = await self._decider.decide(RouteRequest(key, messages, tools))
        except UserError as error:
            decision = undecided(key, self._kind, f"request refused: {error}")
        except RouterFailed as error:
            cause, decision = "error", undecided(key, self._kind, str(error))
        if decision.undecided:
            self._metrics.fallbacks.labels(cause).inc()
        return decision

    async def _with_adapter(self, decision: RouteDecision) -> RouteDecision:
        """The decision, if its adapter can be made and loaded; otherwise one for the base."""
        cause, reason = "rank", self._adapters.too_large(decision.adapters)
        if not reason:
            try:
                async with self._adapters.use(decision.adapters):
                    return decision
            except OUTAGES:
                raise
            except TraceError as error:
                cause, reason = "load", f"cannot be loaded: {error}"
        self._metrics.fallbacks.labels(cause).inc()
        return undecided(decision.conversation, decision.router, reason, decision.weights)
