"""Refuses adapters that an inference server would die of, or would load and then compute something else with."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trace_jax.errors import UserError
from trace_jax.models.formats.peft_config import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    PREFIX,
    rank_and_alpha,
    refuse_unservable,
    refuse_unsupported,
)
from trace_jax.relay.weights import refuse_nonfinite

_LARGEST_CONFIG = 1 << 20  # bytes


def check_adapter(name: str, directory: Path) -> None:
    """Raise UserError unless ``directory`` holds a plain LoRA adapter whose tensors are those that it announces."""
    where = f"adapter {name!r}"
    config = _config(where, directory / ADAPTER_CONFIG)
    refuse_unsupported(where, config)
    rank, _ = rank_and_alpha(where, config)
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        raise UserError(f"{where} has target_modules {str(targets)[:80]!r}: servers need a list of module names")
    modules = _modules(where, directory / ADAPTER_WEIGHTS, rank)
    refuse_nonfinite(where, directory / ADAPTER_WEIGHTS)
    found = {module.rpartition(".")[2] for module in modules}
    if found != set(targets):
        raise UserError(f"{where} has target_modules {sorted(targets)}, but tensors of {sorted(found)}: save it anew")
    blocks: dict[str, set[str]] = {}
    for module in modules:
        block, _, projection = module.rpartition(".")
        blocks.setdefault(block, set()).add(projection)
    for block, projections in blocks.items():
        refuse_unservable(f"{where}, {block}", config, projections)


def _config(where: str, path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _LARGEST_CONFIG:
        raise UserError(f"{where} has a {ADAPTER_CONFIG} of {size} bytes: send the one that PEFT writes")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} has a {ADAPTER_CONFIG} that is not JSON ({error}): save it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{where} has a {ADAPTER_CONFIG} that holds a {type(config).__name__}: save it again")
    return config


def _modules(where: str, path: Path, rank: int) -> set[str]:
    """Modules that have both halves, A [rank, in] and B [out, rank]. Only the file's header is read."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except SafetensorError as error:
        raise UserError(f"{where} has a {ADAPTER_WEIGHTS} that is damaged ({error}): save it again") from None
    halves: dict[str, set[str]] = {LORA_A: set(), LORA_B: set()}
    for key, shape in shapes.items():
        for half, modules in halves.items():
            if key.startswith(PREFIX) and key.endswith(half):
                modules.add(key.removeprefix(PREFIX).removesuffix(half))
                if len(shape) != 2 or shape[0 if half == LORA_A else 1] != rank:
                    raise UserError(f"{where} has tensor {key} of shape {shape}, but r {rank}: save it again")
                break
        else:
            raise UserError(f"{where} has tensor {key!r}, which is not LoRA's: save the adapter alone")
    if odd := sorted(halves[LORA_A] ^ halves[LORA_B]):
        raise UserError(f"{where} has one half of {odd[0]}, but not the other: save it again")
    return halves[LORA_A]
