"""Adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save as to_bytes

from trace_jax.contract.storage import replace_bytes
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import layer_shapes
from trace_jax.models.formats.huggingface import module_names, read_json
from trace_jax.models.formats.peft_config import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    PREFIX,
    refuse_unsupported,
)
from trace_jax.models.formats.peft_fused import fused_module, fused_ranks, fused_shape, unfused
from trace_jax.models.formats.tensors import TensorFiles
from trace_jax.models.lora import TARGETS, LoRA, pad_rank


def save_peft(lora: LoRA, config: DecoderConfig, directory: str | os.PathLike[str], base: str) -> None:
    """Write one adapter (A = 1) for PEFT and inference servers. ``base`` is the name or path of its base model.

    Experts have their adapters one by one (``….mlp.experts.3.gate_proj.lora_A.weight``), as inference servers and
    transformers 4 name them. Where transformers 5 holds experts in one tensor, PEFT (0.21) converts them, but only
    those of gate_proj, up_proj and down_proj together: it refuses one of the first two alone, and ignores both without
    down_proj.
    """
    if lora.num_adapters != 1:
        raise UserError(f"{lora.num_adapters} adapters cannot go into one PEFT directory: select one first")
    path, tensors = epath.Path(directory), {}
    for target, pair in lora.weights.items():
        a, b = np.asarray(pair["a"][0]), np.asarray(pair["b"][0])
        expected = (config.num_layers, *layer_shapes(config)[target])
        if (found := (*a.shape[:-1], b.shape[-1])) != expected:
            raise UserError(
                f"adapter target {target!r} has layers, (experts,) in, out {found}; the base has {expected}"
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise UserError(f"adapter target {target!r} holds NaN or infinity: use an earlier checkpoint")
        for position, module in np.ndenumerate(module_names(config, target)):
            tensors[f"{PREFIX}{module}{LORA_A}"] = np.ascontiguousarray(a[position].T)
            tensors[f"{PREFIX}{module}{LORA_B}"] = np.ascontiguousarray(b[position].T)
    alpha = float(lora.scale[0]) * lora.rank
    data = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": list(lora.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
    }
    replace_bytes(path / ADAPTER_WEIGHTS, to_bytes(tensors, metadata={"format": "pt"}))
    replace_bytes(path / ADAPTER_CONFIG, json.dumps(data, indent=2).encode() + b"\n")  # last: it completes it


def recorded_base(directory: str | os.PathLike[str]) -> str:
    """What an adapter says that its base is: a name, a path, or for our own the base's revision."""
    return str(read_json(Path(directory) / ADAPTER_CONFIG).get("base_model_name_or_path") or "")


def load_peft(
    directory: str | os.PathLike[str], config: DecoderConfig, base: str | None = None, dtype: Any = jnp.float32
) -> LoRA:
    """Read one adapter (A = 1) for the base described by ``config``; of experts, one by one or fused (``peft_fused``).

    Raises:
        UserError: not a plain LoRA adapter; made for another base (its recorded name differs from ``base``, if
            given; or its layers, targets or widths do not fit); a rank that differs from its tensors'; a truncated
            file; a missing, unknown or non-finite tensor.
    """
    path = Path(directory)
    data = read_json(path / ADAPTER_CONFIG)
    refuse_unsupported(path, data)
    if base is not None and (recorded := recorded_base(path)) != base:
        raise UserError(f"{path} was trained for base {recorded!r}, not {base!r}: use its own base")
    rank, alpha, targets = _shape(path, data)
    fused = fused_ranks(path, data, config, rank, alpha)

    # What is stored: module paths, in, out, and the columns of a.
    stored: dict[str, tuple[np.ndarray, int, int, int]] = {}
    for target in targets:
        fan_in, fan_out = layer_shapes(config)[target][-2:]
        stored[target] = module_names(config, target), fan_in, fan_out, rank
    for name, own_rank in fused.items():
        paths = [f"model.layers.{layer}.{fused_module(name, fused)}" for layer in range(config.num_layers)]
        stored[name] = np.array(paths, object), *fused_shape(config, name), own_rank * config.num_experts
    shapes: dict[str, tuple[int, ...]] = {}
    for modules, fan_in, fan_out, columns in stored.values():
        shapes |= dict.fromkeys((PREFIX + modules + LORA_A).flat, (columns, fan_in))
        shapes |= dict.fromkeys((PREFIX + modules + LORA_B).flat, (fan_out, columns))
    files = TensorFiles([path / ADAPTER_WEIGHTS])
    files.require(shapes)

    def stacked(names: np.ndarray) -> Any:
        value = np.empty((1, *names.shape, *shapes[names.flat[0]][::-1]), dtype)
        for position, name in np.ndenumerate(names):
            value[0][position] = files.read(name).T
        return jnp.asarray(value)

    weights: dict[str, dict[str, Any]] = {}
    for name, (modules, *_) in stored.items():
        pair = {"a": stacked(PREFIX + modules + LORA_A), "b": stacked(PREFIX + modules + LORA_B)}
        found = unfused(config, name, pair) if name in fused else {name: pair}
        if twice := sorted(found.keys() & weights.keys()):
            raise UserError(f"{path} adapts {twice[0]} twice, alone and in {name}: give it one of the two")
        weights |= found
    scale, largest = jnp.full((1,), alpha / rank, jnp.float32), max([rank, *fused.values()])
    return LoRA(
        {name: pad_rank(LoRA({name: pair}, scale), largest).weights[name] for name, pair in weights.items()}, scale
    )


def _shape(path: Path, data: dict[str, Any]) -> tuple[int, float, tuple[str, ...]]:
    """Rank, alpha and targets as the adapter's configuration states them."""
    rank, alpha, modules = data.get("r"), data.get("lora_alpha"), data.get("target_modules")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(f"{path} has r {rank!r} and lora_alpha {alpha!r}; both must be positive numbers")
    if modules == "all-linear":
        return rank, float(alpha), TARGETS
    if data.get("target_parameters") and not modules:
        return rank, float(alpha), ()
    if not isinstance(modules, list) or not modules or set(modules) - set(TARGETS):
        raise UserError(f"{path} has target_modules {modules!r}; supported are lists of {', '.join(TARGETS)}")
    return rank, float(alpha), tuple(name for name in TARGETS if name in modules)
