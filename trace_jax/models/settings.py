"""Settings of the base model, and the names that other settings choose from."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.settings import Settings, setting

# Projections that LoRA can adapt, under the names of Hugging Face.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Remat = Literal["none", "full", "attention", "projections"]  # what a layer keeps for the backward pass; see remat.py


@dataclass(frozen=True, kw_only=True)
class BaseModelSettings(Settings):
    """The frozen model that adapters are trained on."""

    section: ClassVar = "base"
    path: str = setting("", "Hugging Face directory of the base model")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "dtype of the weights")
