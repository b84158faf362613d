"""Settings of the base model."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class BaseModelSettings(Settings):
    """The frozen model that adapters are trained on."""

    section: ClassVar = "base"
    path: str = setting("", "Hugging Face directory of the base model")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "dtype of the weights")
