"""What whoever takes an adapter in PEFT's format looks at first. Needs no JAX, which the relay's machine lacks."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from trace_jax.errors import UserError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, LORA_A, LORA_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # around a module, in a tensor's name

# Settings of PEFT that make an adapter compute something other than scale · x a b; each must be absent or neutral.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "fan_in_fan_out": (False,),
    "layer_replication": (),
    "layers_to_transform": (),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "trainable_token_indices": (),
    "use_bdlora": (),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_rslora": (False,),
}


def refuse_unsupported(path: str | Path, data: dict[str, Any]) -> None:
    """Raise UserError unless ``data``, the configuration in ``path``, is one of a plain LoRA adapter."""
    if (kind := data.get("peft_type")) != "LORA":
        raise UserError(f"{path} has peft_type {kind!r}; only 'LORA' is supported")
    for key, neutral in _NEUTRAL.items():
        if (value := data.get(key)) is not None and value not in neutral:
            raise UserError(f"{path} has {key} {value!r}, which is not supported: train the adapter as plain LoRA")


def refuse_unservable(path: str | Path, data: dict[str, Any], targets: Collection[str]) -> None:
    """Raise UserError for what SGLang would die of, or compute otherwise than PEFT.

    ``data`` is the configuration in ``path``, ``targets`` the projections that it adapts in a layer.
    """
    for key in ("target_parameters", "rank_pattern", "alpha_pattern"):
        if data.get(key):
            raise UserError(f"{path} has {key} {data[key]!r}, which SGLang does not read: use one rank and one alpha")
    attention = {"q_proj", "k_proj", "v_proj"} & set(targets)
    if attention and not {"q_proj", "v_proj"} <= attention:
        raise UserError(
            f"{path} adapts {', '.join(sorted(attention))}: SGLang takes q_proj and v_proj together, with or without "
            "k_proj, and dies of k_proj or v_proj alone; change training.target_modules"
        )
    if "up_proj" in targets and "gate_proj" not in targets:
        raise UserError(f"{path} adapts up_proj without gate_proj, which SGLang ignores: adapt both, or gate_proj")
