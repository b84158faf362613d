"""Selects the adapters that serve, by the weights of the base and the adapters: the best, all needed, or a merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.routing.router import BASE
from trace_jax.routing.settings import RoutingSettings


class SelectionPolicy(Protocol):
    """Turns weights (base included, sum 1) into merge weights of adapters. If there are none, the base serves."""

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]: ...


@dataclass(frozen=True)
class Best:
    """The adapter of the largest weight, at full strength; the base if its weight is the largest."""

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]:
        best = max(weights, key=lambda name: weights[name])
        return {} if best == BASE else {best: 1.0}


@dataclass(frozen=True)
class Nucleus:
    """The smallest set of choices whose weights reach ``top_p``, renormalised to 1 within the set.

    The base's share of the set adds nothing to the weights, so it shrinks the merged delta:
    ``W' = W + Σ α_c s_c B_c A_c`` with ``Σ α_c = 1 - α_base``.
    """

    top_p: float  # in (0, 1]

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]:
        nucleus: dict[str, float] = {}
        for name in sorted(weights, key=lambda name: -weights[name]):
            nucleus[name] = weights[name]
            if sum(nucleus.values()) >= self.top_p - 1e-9:
                break
        mass = sum(nucleus.values())
        return {name: weight / mass for name, weight in nucleus.items() if name != BASE and weight > 0.0}


@dataclass(frozen=True)
class Together:
    """Every adapter with at least half of the largest weight, each at full strength; the base if its weight is largest.

    ``W' = W + Σ s_c B_c A_c``: a conversation that needs two capabilities gets both at full strength, not half of each.
    """

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]:
        best = max(weights.values())
        if weights[BASE] == best:
            return {}
        needed = sorted((name for name in weights if weights[name] >= best / 2), key=lambda name: -weights[name])
        return {name: 1.0 for name in needed if name != BASE}


def make_policy(settings: RoutingSettings) -> SelectionPolicy:
    """The selection policy that ``settings.policy`` names."""
    match settings.policy:
        case "best":
            return Best()
        case "together":
            return Together()
        case "nucleus":
            return Nucleus(settings.top_p)


def choices(table: RouteTable) -> tuple[str, ...]:
    """The choices of a router over ``table``, in the order of its score columns: the base, then the adapters."""
    return (BASE, *(route.adapter for route in table.routes))


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(scores / temperature)`` over the last axis in float64. A row with a NaN or +inf becomes all NaN."""
    scaled = np.asarray(scores, np.float64) / temperature
    with np.errstate(invalid="ignore"):
        shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)


def undecided(
    conversation: str, kind: RouterKind, reason: str, weights: Mapping[str, float] | None = None
) -> RouteDecision:
    """The decision of a router that could not decide, for ``reason``: the base serves."""
    return RouteDecision(
        conversation=conversation, router=kind, weights=dict(weights or {}), adapters={}, undecided=True, reason=reason
    )


def decide(
    conversation: str, kind: RouterKind, table: RouteTable, scores: Sequence[float], policy: SelectionPolicy
) -> RouteDecision:
    """The decision for one conversation.

    Args:
        scores: one logit a choice, ordered as ``choices(table)``; divided by ``table.temperature`` before the softmax.

    It is undecided, so that the base serves, if a score is not finite, if the best weight is below
    ``table.minimum_weight``, or if several adapters have exactly the best weight and ``policy`` leaves one of them out.
    """
    names = choices(table)
    row = np.asarray(scores, np.float64)
    if row.shape != (len(names),):
        raise ValueError(f"scores have shape {row.shape}; the table has {len(names)} choices, the base included")
    if not np.isfinite(row).all():
        bad = [name or "base" for name, ok in zip(names, np.isfinite(row), strict=True) if not ok]
        return undecided(conversation, kind, f"scores not finite: {', '.join(bad)}")
    probabilities = softmax(row, table.temperature)
    weights = {name: float(weight) for name, weight in zip(names, probabilities, strict=True)}
    best = max(weights.values())
    if best < table.minimum_weight:
        return undecided(
            conversation, kind, f"best weight below the minimum: {best:.3f} < {table.minimum_weight:.3f}", weights
        )
    top = [name for name, weight in weights.items() if weight == best]
    adapters = policy(weights)
    if len(top) > 1 and BASE not in top and not set(top) <= set(adapters):
        return undecided(conversation, kind, f"tie: {', '.join(top)}", weights)
    return RouteDecision(conversation=conversation, router=kind, weights=weights, adapters=adapters)
