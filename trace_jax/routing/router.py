"""What a router is: from the first request of a conversation to a decision over the base and the adapters."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.contract.trajectory import Message, Tool

BASE = ""  # the base model's key in ``RouteDecision.weights``


@dataclass(frozen=True)
class RouteRequest:
    """The first request of a conversation."""

    conversation: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


class Router(Protocol):
    """Routes a conversation once, from its first request. A router that cannot decide sends it to the base."""

    kind: RouterKind
    table: RouteTable

    def decide(self, conversation: str, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> RouteDecision: ...

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request, in their order."""
        ...


class SingleDecision(ABC):
    """Gives ``decide`` to a router that has ``decide_batch``."""

    def decide(self, conversation: str, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> RouteDecision:
        """The decision for one conversation."""
        return self.decide_batch([RouteRequest(conversation, tuple(messages), tuple(tools))])[0]

    @abstractmethod
    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request, in their order."""


@dataclass(frozen=True)
class RouteCounts:
    """How many conversations went where; ``undecided`` counts, by reason, those that the base got by default."""

    total: int
    adapters: Counter[str] = field(default_factory=Counter)
    base: int = 0
    undecided: Counter[str] = field(default_factory=Counter)


def count_decisions(decisions: Iterable[RouteDecision]) -> RouteCounts:
    """Count decisions by adapter (each adapter of a merge counts), by base, and by reason where undecided.

    The reason is counted up to its first colon, so that details do not split the count.
    """
    total, base, adapters, undecided = 0, 0, Counter[str](), Counter[str]()
    for decision in decisions:
        total += 1
        if decision.undecided:
            undecided[decision.reason.split(":", 1)[0]] += 1
        elif decision.adapters:
            adapters.update(decision.adapters.keys())
        else:
            base += 1
    return RouteCounts(total=total, adapters=adapters, base=base, undecided=undecided)
