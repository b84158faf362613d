"""How a pass through the decoder is computed. It changes speed and memory, never the result beyond rounding."""

from dataclasses import dataclass
from typing import Literal

from trace_jax.errors import UserError
from trace_jax.models.settings import Remat

Attention = Literal["xla", "cudnn", "flash"]
Experts = Literal["ragged", "capacity"]
_PLATFORMS = ("cpu", "gpu", "cuda", "tpu")


@dataclass(frozen=True)
class Execution:
    """The kernels, and the values that the backward pass keeps. It is hashable, so that compiled programs can be
    cached by it."""

    attention: Attention = "xla"  # flash: our kernel for TPUs; see attention.attend_packed
    attention_rows: bool = True  # xla: one row at a time, recomputed in the backward pass
    experts: Experts = "capacity"  # how rows are laid out for their experts; see experts.py
    remat: Remat = "none"  # what a layer keeps for the backward pass; see remat.py
    logits_elements: int = 1 << 19  # logits that the fused head holds at once; the default fits a CPU's cache


def execution_for(platform: str, remat: Remat | None = None) -> Execution:
    """The kernels of a platform: ``cpu``, ``gpu`` (``cuda``) or ``tpu``.

    ``remat`` None means "projections" on a CPU, where recomputing all other values is faster than keeping them, and
    "full" elsewhere. Raises UserError for another platform.
    """
    if platform not in _PLATFORMS:
        raise UserError(f"platform {platform!r} is not supported; use one of {', '.join(_PLATFORMS)}")
    if platform == "cpu":
        return Execution(remat=remat or "projections")
    attention, experts = ("flash", "ragged") if platform == "tpu" else ("cudnn", "capacity")
    return Execution(attention, False, experts, remat or "full", 1 << 28)  # type: ignore[arg-type]
