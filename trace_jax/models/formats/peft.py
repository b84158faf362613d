"""Adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save as to_bytes

from trace_jax.contract.storage import replace_bytes
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import layer_shapes
from trace_jax.models.formats.json_files import read_json, shown
from trace_jax.models.formats.parameters import module_names
from trace_jax.models.formats.peft_config import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    PREFIX,
    module_filter,
    rank_and_alpha,
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
    """The base that an adapter says it was trained for: a name, a path, or for our own the base's revision."""
    return str(read_json(Path(directory) / ADAPTER_CONFIG).get("base_model_name_or_path") or "")


@dataclass(frozen=True)
class _Stored:
    """A projection's matrices as files hold them, one pair for each module."""

    modules: np.ndarray  # module paths, str [L] or [L, E]
    adapted: np.ndarray  # bool, of the same shape: the other modules have no matrices
    fan_in: int
    fan_out: int
    columns: int  # of a: the rank, or the ranks of all experts side by side

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' names and shapes."""
        names = PREFIX + self.modules[self.adapted]
        return {
            **dict.fromkeys(names + LORA_A, (self.columns, self.fan_in)),
            **dict.fromkeys(names + LORA_B, (self.fan_out, self.columns)),
        }


def load_peft(
    directory: str | os.PathLike[str], config: DecoderConfig, base: str | None = None, dtype: Any = jnp.float32
) -> LoRA:
    """Read one adapter (A = 1) for the base described by ``config``; of experts, one by one or fused (``peft_fused``).

    Which modules it adapts is decided as in PEFT (``peft_config.module_filter``), and its tensors must agree. A module
    of a target that is not adapted in every layer, or for every expert, gets matrices of zeros.

    Raises:
        UserError: not a plain LoRA adapter; made for another base (its recorded name differs from ``base``, if
            given; or its layers, targets or widths do not fit); a rank that differs from its tensors'; a truncated
            file; a missing, unknown or non-finite tensor.
    """
    path = Path(directory)
    data = read_json(path / ADAPTER_CONFIG)
    refuse_unsupported(path, data)
    if base is not None and (recorded := recorded_base(path)) != base:
        raise UserError(f"{path} was trained for base {shown(recorded)}, not {base!r}: use its own base")
    rank, alpha = rank_and_alpha(path, data)
    fused = fused_ranks(path, data, config, rank, alpha)
    files = TensorFiles([path / ADAPTER_WEIGHTS])

    stored = _separate_modules(path, data, config, rank)
    for name, own_rank in fused.items():
        paths = [f"model.layers.{layer}.{fused_module(name, fused)}" for layer in range(config.num_layers)]
        modules = np.array(paths, object)
        columns = own_rank * config.num_experts
        stored[name] = _Stored(modules, np.ones(modules.shape, bool), *fused_shape(config, name), columns)
    shapes = {name: shape for part in stored.values() for name, shape in part.shapes().items()}
    files.require(shapes, source=f"target_modules {shown(data.get('target_modules'))}")

    weights: dict[str, dict[str, Any]] = {}
    for name, part in stored.items():
        pair = {
            "a": _stacked(files, part, LORA_A, (part.fan_in, part.columns), dtype),
            "b": _stacked(files, part, LORA_B, (part.columns, part.fan_out), dtype),
        }
        found = unfused(config, name, pair) if name in fused else {name: pair}
        if twice := sorted(found.keys() & weights.keys()):
            raise UserError(f"{path} adapts {twice[0]} twice, alone and in {name}: give it one of the two")
        weights |= found
    scale, largest = jnp.full((1,), alpha / rank, jnp.float32), max([rank, *fused.values()])
    return LoRA(
        {name: pad_rank(LoRA({name: pair}, scale), largest).weights[name] for name, pair in weights.items()}, scale
    )


def _separate_modules(path: Path, data: dict[str, Any], config: DecoderConfig, rank: int) -> dict[str, _Stored]:
    """The projections that are modules of their own and that the configuration targets, in the order of TARGETS."""
    is_adapted, shapes = module_filter(path, data), layer_shapes(config)
    stored: dict[str, _Stored] = {}
    for target in TARGETS:
        modules = module_names(config, target)
        adapted = np.array([is_adapted(name) for name in modules.flat], bool).reshape(modules.shape)
        fan_in, fan_out = shapes[target][-2:]
        if adapted.any():
            stored[target] = _Stored(modules, adapted, fan_in, fan_out, rank)
    if not stored and not data.get("target_parameters"):
        raise UserError(
            f"{path} has target_modules {shown(data.get('target_modules'))}, which name none of the projections "
            f"{', '.join(TARGETS)}: train an adapter of these"
        )
    return stored


def _stacked(files: TensorFiles, part: _Stored, half: str, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """One half of a projection's matrices, ``[1, L, (E,) *shape]``."""
    value = np.zeros((1, *part.modules.shape, *shape), dtype)
    for position in zip(*np.nonzero(part.adapted), strict=True):
        value[0][position] = files.read(f"{PREFIX}{part.modules[position]}{half}").T
    return jnp.asarray(value)
