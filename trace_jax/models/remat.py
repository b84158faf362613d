"""What a scanned layer keeps from the forward pass for its gradient; the rest is computed again."""

from collections.abc import Callable
from typing import TypeVar

import jax

from trace_jax.models.execution import Remat

Function = TypeVar("Function", bound=Callable)

_ATTENTION = jax.checkpoint_policies.save_only_these_names("attention")
_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # only the layer's input
    "attention": _ATTENTION,  # and the output of attention
    "projections": jax.checkpoint_policies.save_from_both_policies(  # and that of every projection
        _ATTENTION, jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
}


def rematerialised(step: Function, remat: Remat) -> Function:
    """``step`` of a scan under the policy of that name; "none" keeps everything."""
    if remat == "none":
        return step
    # Inside a scan nothing could be merged with the forward pass: guarding against it would only cost.
    return jax.checkpoint(step, policy=_POLICIES[remat], prevent_cse=False)  # type: ignore[return-value]
