"""Rematerialisation: a scanned layer keeps some values of the forward pass and computes the others again."""

from collections.abc import Callable
from typing import TypeVar

import jax

from trace_jax.models.execution import Remat

Function = TypeVar("Function", bound=Callable)

_ATTENTION = jax.checkpoint_policies.save_only_these_names("attention")
_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # keeps only the layer's input
    "attention": _ATTENTION,  # also keeps the output of attention
    "projections": jax.checkpoint_policies.save_from_both_policies(  # also keeps the output of every projection
        _ATTENTION, jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
}


def rematerialised(step: Function, remat: Remat) -> Function:
    """The body ``step`` of a scan, wrapped in the policy of that name; "none" keeps everything."""
    if remat == "none":
        return step
    # Inside a scan XLA cannot merge the recomputation with the forward pass, so the guard against that only costs time.
    return jax.checkpoint(step, policy=_POLICIES[remat], prevent_cse=False)  # type: ignore[return-value]
