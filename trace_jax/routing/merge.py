"""Makes the adapter that serves a decision."""

from collections.abc import Mapping

from trace_jax.contract.routing import RouteDecision
from trace_jax.errors import UserError
from trace_jax.models.lora import LoRA, merge


def materialise(decision: RouteDecision, adapters: Mapping[str, LoRA]) -> LoRA | None:
    """The adapter of the decision, or the weighted merge ``W' = W + Σ α_c s_c B_c A_c``; None if the base serves.

    A single adapter at full weight is returned as it is. Ranks add up in a merge.

    Raises:
        UserError: the decision names an adapter that is not in ``adapters``.
    """
    missing = [name for name in decision.adapters if name not in adapters]
    if missing:
        raise UserError(
            f"route decision for {decision.conversation} names adapter {missing[0]!r}, which is not loaded: load it"
        )
    if not decision.adapters:
        return None
    if list(decision.adapters.values()) == [1.0]:
        return adapters[next(iter(decision.adapters))]
    return merge([adapters[name] for name in decision.adapters], list(decision.adapters.values()))
