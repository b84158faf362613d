"""From a call to what serves it: fixed by the model's name, or decided at the conversation's first request."""

import time
from collections.abc import Mapping

from trace_jax.contract.routing import RouteDecision
from trace_jax.engines.sglang.server import OUTAGES
from trace_jax.errors import TraceError, UserError
from trace_jax.gateway.adapters import Adapters
from trace_jax.gateway.decisions import ROUTER_ERROR, Decider, DecisionLog
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import BASE
from trace_jax.gateway.pinning import HEADER, Pins
from trace_jax.gateway.request import Call, conversation, opening
from trace_jax.routing.router import Router, RouteRequest
from trace_jax.routing.select import undecided


def label(parts: Mapping[str, float]) -> str:
    """What serves, as it is told to clients: ``base``, an adapter's name, or ``0.700000*a+0.300000*b``."""
    if not parts:
        return BASE
    if list(parts.values()) == [1.0]:
        return next(iter(parts))
    return "+".join(f"{weight:.6f}*{name}" for name, weight in sorted(parts.items()))


class Conversations:
    """Decides on each conversation once. What cannot be decided, made or loaded goes to the base, and is counted."""

    def __init__(self, router: Router, adapters: Adapters, pins: Pins, log: DecisionLog, metrics: Metrics) -> None:
        self._kind, self._decider = router.kind, Decider(router)
        self._adapters, self._pins, self._log, self._metrics = adapters, pins, log, metrics

    async def decision(self, call: Call, key: str) -> RouteDecision:
        """The decision of the conversation ``key``, which ``call`` belongs to. Raises EngineGone or ServerFailed."""
        return await self._pins.get(key, lambda: self._decide(call, key))

    async def _decide(self, call: Call, key: str) -> RouteDecision:
        started = time.perf_counter()
        decision = await self._served(await self._routed(call, key))
        self._metrics.routing_seconds.observe(time.perf_counter() - started)
        self._metrics.decisions.labels("merged" if len(decision.adapters) > 1 else label(decision.adapters)).inc()
        self._log.write(decision)
        return decision

    async def _routed(self, call: Call, key: str) -> RouteDecision:
        try:
            messages, tools = conversation(call if HEADER in call.headers else opening(call))
        except UserError as error:
            decision = undecided(key, self._kind, f"request refused: {error}")
        else:
            decision = await self._decider.decide(RouteRequest(key, messages, tools))
        if decision.undecided:
            cause = "error" if decision.reason.startswith(ROUTER_ERROR) else "undecided"
            self._metrics.fallbacks.labels(cause).inc()
        return decision

    async def _served(self, decision: RouteDecision) -> RouteDecision:
        """The decision, if its adapter can be had."""
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
