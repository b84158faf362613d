"""The protocol of routers: the first request of a conversation becomes a decision over the base and the adapters."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Routes a conversation once, by its first request. A router that cannot decide sends it to the base."""

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
