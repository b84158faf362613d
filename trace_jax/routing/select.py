"""From weights over {base, adapters} to the adapters that serve: the best, all that are needed, or a merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.errors import UserError
from trace_jax.routing.router import BASE


class Policy(Protocol):
    """Turns weights (base included, sum 1) into merge weights of adapters; empty: the base serves."""

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]: ...


@dataclass(frozen=True)
class BestOne:
    """The adapter of the largest weight, at full strength; the base where the base is largest."""

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]:
        best = max(weights, key=lambda name: weights[name])
        return {} if best == BASE else {best: 1.0}


@dataclass(frozen=True)
class Nucleus:
    """The smallest set of choices whose weights reach ``top_p``, renormalised to 1 within the set.

    The base's share of the set adds nothing to the weights, so it shrinks the merged delta:
    ``W' = W + Σ α_c s_c B_c A_c`` with ``Σ α_c = 1 - α_base``.
    """

    top_p: float

    def __post_init__(self) -> None:
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}: give a value in (0, 1]")

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
    """Every adapter of at least half the largest adapter's weight, each at full strength; the base where it is largest.

    ``W' = W + Σ s_c B_c A_c``: a conversation that needs two capabilities gets both whole, not two halves.
    """

    def __call__(self, weights: Mapping[str, float]) -> dict[str, float]:
        best = max(weights.values())
        if weights[BASE] == best:
            return {}
        needed = sorted((name for name in weights if weights[name] >= best / 2), key=lambda name: -weights[name])
        return {name: 1.0 for name in needed if name != BASE}


POLICIES = ("best", "together", "nucleus")


def make_policy(name: str, top_p: float) -> Policy:
    """The policy called ``name``; ``top_p`` is the nucleus' own. Raises UserError for an unknown one."""
    if name not in POLICIES:
        raise UserError(f"routing.policy {name!r}: use one of {', '.join(POLICIES)}")
    return Nucleus(top_p) if name == "nucleus" else Together() if name == "together" else BestOne()


def choices(table: RouteTable) -> tuple[str, ...]:
    """What a router over ``table`` chooses from, in the order of its score columns: the base, then the routes."""
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
    """The base serves because the router could not decide, for ``reason``."""
    return RouteDecision(
        conversation=conversation, router=kind, weights=dict(weights or {}), adapters={}, undecided=True, reason=reason
    )


def decide(
    conversation: str, kind: RouterKind, table: RouteTable, scores: Sequence[float], policy: Policy
) -> RouteDecision:
    """The decision for one conversation.

    Args:
        scores: one logit a choice, ordered as ``choices(table)``; divided by ``table.temperature`` before the softmax.

    Undecided, so that the base serves: a score that is not finite; a best weight below ``table.minimum_weight``;
    adapters exactly equal at the top of which ``policy`` would leave one out.
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
