"""Routers that do not read the conversation: by chance, or by a given mapping. They bound the gain of routing."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.errors import UserError
from trace_jax.routing.router import BASE, RouteRequest, SingleDecision
from trace_jax.routing.select import choices, undecided


def _certain(conversation: str, kind: RouterKind, names: Sequence[str], chosen: str) -> RouteDecision:
    weights = {name: float(name == chosen) for name in names}
    return RouteDecision(
        conversation=conversation, router=kind, weights=weights, adapters={} if chosen == BASE else {chosen: 1.0}
    )


def _known(names: Sequence[str], chosen: str) -> str:
    if chosen not in names:
        raise UserError(f"no adapter {chosen!r} in the route table; it has {', '.join(names[1:]) or 'none'}")
    return chosen


class RandomRouter(SingleDecision):
    """Uniform over the adapters, a pure function of (seed, conversation). The base serves if there are no adapters."""

    kind: RouterKind = "random"

    def __init__(self, table: RouteTable, seed: int):
        self.table, self.seed = table, seed
        self._pool = choices(table)[1:] or choices(table)

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request, drawn by a hash of the conversation's id: the order of requests does not matter."""
        return [_certain(r.conversation, self.kind, choices(self.table), self._draw(r.conversation)) for r in requests]

    def _draw(self, conversation: str) -> str:
        digest = sha256(f"{self.seed}/{conversation}".encode()).digest()
        return self._pool[int.from_bytes(digest[:8], "big") % len(self._pool)]


class OracleRouter(SingleDecision):
    """Routes by a given mapping: ``mapping[conversation]`` is an adapter, or ``""`` for the base."""

    kind: RouterKind = "oracle"

    def __init__(self, table: RouteTable, mapping: Mapping[str, str]):
        self.table = table
        self.mapping = {conversation: _known(choices(table), name) for conversation, name in mapping.items()}

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request. A conversation that is not in the mapping is undecided: the base serves."""
        names = choices(self.table)
        return [
            _certain(r.conversation, self.kind, names, self.mapping[r.conversation])
            if r.conversation in self.mapping
            else undecided(r.conversation, self.kind, f"not in the oracle's mapping: {r.conversation}")
            for r in requests
        ]
