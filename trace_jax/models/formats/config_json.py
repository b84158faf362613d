"""``config.json`` of a model: read as transformers reads it, or refused; written so that transformers reads it back.

transformers knows what the wild holds (fields of older versions, defaults of each type); it needs no torch for this.
It is imported when the first file is read, since that takes about a second.
"""

import copy
import importlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trace_jax.errors import UserError
from trace_jax.models.config import (
    LARGEST_COUNT,
    LARGEST_INT32,
    LARGEST_SIZE,
    DecoderConfig,
    Llama3Scaling,
    require_whole,
)
from trace_jax.models.families import Family, family_of
from trace_jax.models.formats.json_files import read_json, shown

CONFIG = "config.json"
_FULL, _SLIDING = "full_attention", "sliding_attention"
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_REQUIRED_OF_EXPERTS = ("num_experts_per_tok", "moe_intermediate_size")
_LARGEST = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size"), LARGEST_SIZE),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim"), LARGEST_SIZE),
    **dict.fromkeys(("num_hidden_layers", "num_experts", "num_local_experts", "num_experts_per_tok"), LARGEST_COUNT),
    **dict.fromkeys(("max_position_embeddings", "sliding_window"), LARGEST_INT32),
}
_ROPE_BESIDE = (
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)  # may stand in the file itself
_MAY_BE_ZERO = ("intermediate_size", "num_experts", "num_local_experts")  # of a mixture, and of a dense model
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "is_causal": (True,),
    "per_layer_config": ({}, [], None),
    "mlp_only_layers": ([], None),
    "decoder_sparse_step": (1,),
    "hidden_act": ("silu",),
}


def read_config(path: str | os.PathLike[str]) -> DecoderConfig:
    """The shape of a model. ``path`` is its directory, or a file ``….json`` in the format of ``config.json``.

    Raises UserError for a file that cannot be read, and for a model that the decoder does not compute.
    """
    file = Path(path)
    if file.suffix != ".json" or file.is_dir():
        file /= CONFIG
    return config_from_json(read_json(file), str(file))


def config_from_json(data: Mapping[str, Any], where: str = CONFIG) -> DecoderConfig:
    """The shape that a ``config.json`` of transformers 4 or 5 states; ``where`` names the file in messages.

    Raises:
        UserError: an unknown ``model_type``; sizes that are missing, ill-typed, not positive or too large; rotary
            positions, windows, biases, activations, quantization or mixtures that the decoder does not compute;
            values that contradict one another, or that transformers refuses.
    """
    try:
        return _config(data)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def config_to_json(config: DecoderConfig) -> dict[str, Any]:
    """A ``config.json`` that transformers (4 and 5) and inference servers read back to the same function."""
    experts = {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.moe_intermediate_size,
        "norm_topk_prob": config.norm_topk_prob,
    }
    scaling = {"rope_type": "llama3", **asdict(config.rope_scaling)} if config.rope_scaling else {}
    return {
        "architectures": [config.family.architecture],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,  # transformers 4 reads this and rope_scaling, version 5 the third
        "rope_scaling": scaling or None,
        "rope_parameters": {"rope_type": "default", **scaling, "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "max_position_embeddings": config.max_position_embeddings,
        "bos_token_id": None,  # without these two, transformers fills in the type's own ids
        "eos_token_id": None,
        **(experts if config.num_experts else {}),
        **(_windows_to_json(config) if config.layer_windows else {}),
    }


def _windows_to_json(config: DecoderConfig) -> dict[str, Any]:
    window = next(window for window in config.layer_windows if window is not None)
    data: dict[str, Any] = {"use_sliding_window": True, "sliding_window": window}
    if config.family.windows == "by_layer_type":
        data["layer_types"] = [_FULL if window is None else _SLIDING for window in config.layer_windows]
    return data


def _config(data: Mapping[str, Any]) -> DecoderConfig:
    family = family_of(data.get("model_type"))
    _check_sizes(data, family)
    _refuse_unsupported(data, family)
    read = _as_transformers_reads(data, family)
    heads, width = read.num_attention_heads, read.hidden_size
    head_dim = getattr(read, "head_dim", None)
    theta, scaling = _rope(data, read)
    experts: dict[str, Any] = {}
    if family.experts:
        names = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
        experts = {name: getattr(read, name) for name in names}
    return DecoderConfig(
        vocab_size=read.vocab_size,
        hidden_size=width,
        num_layers=read.num_hidden_layers,
        num_heads=heads,
        num_kv_heads=read.num_key_value_heads,
        head_dim=width // heads if head_dim is None else head_dim,
        intermediate_size=read.intermediate_size,
        rope_theta=theta,
        rms_norm_eps=read.rms_norm_eps,
        tie_embeddings=read.tie_word_embeddings,
        model_type=family.model_type,
        max_position_embeddings=read.max_position_embeddings,
        rope_scaling=scaling,
        layer_windows=_layer_windows(data, read, family),
        **experts,
    )


def _as_transformers_reads(data: Mapping[str, Any], family: Family) -> Any:
    """The configuration object of transformers."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # else it says at import that it misses torch
    config_class = getattr(importlib.import_module("transformers"), family.config_class)
    unused = ("dtype", "torch_dtype")  # transformers would import torch to look these up
    try:
        return config_class.from_dict(copy.deepcopy({key: data[key] for key in data if key not in unused}))
    except Exception as error:  # its validators raise many types
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"transformers refuses it as a {family.config_class} ({type(error).__name__}: {reason}): "
            "correct the value, or take the file from the model's original repository"
        ) from error


def _check_sizes(data: Mapping[str, Any], family: Family) -> None:
    """Before transformers builds lists as long as a size says."""
    required = (*_REQUIRED, *(_REQUIRED_OF_EXPERTS if family.experts else ()))
    if missing := [name for name in required if data.get(name) is None]:
        raise UserError(f"{missing[0]!r} is missing; take the file from the model's original repository")
    if family.experts and data.get("num_experts") is None and data.get("num_local_experts") is None:
        raise UserError("'num_experts' is missing; take the file from the model's original repository")
    for name, largest in _LARGEST.items():
        if data.get(name) is not None:
            require_whole(name, data[name], 0 if name in _MAY_BE_ZERO else 1, largest)


def _refuse_unsupported(data: Mapping[str, Any], family: Family) -> None:
    if quantization := data.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
        raise UserError(f"quantization_config {shown(method)} is not supported; use the unquantized weights")
    experts = data.get("num_experts") or data.get("num_local_experts")
    if experts and not family.experts:
        raise UserError(f"num_experts {experts!r} is not supported for model_type {family.model_type!r}")
    for name, neutral in _NEUTRAL.items():
        value = data.get(name, neutral[0])  # null is a value of its own: transformers takes is_causal null for False
        if not any(value == same and type(value) is type(same) for same in neutral):
            raise UserError(f"{name} {shown(value)} is not supported; use a model with {neutral[0]!r}")


def _rope(data: Mapping[str, Any], read: Any) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling of the rotary positions."""
    rope = read.rope_parameters
    if nested := [key for key, value in rope.items() if isinstance(value, Mapping)]:
        raise UserError(
            f"rope_parameters has its own settings for {nested[0]!r}, which is not supported; "
            "give one rope_type and rope_theta for all layers"
        )
    given = [("rope_scaling", data.get("rope_scaling")), ("rope_parameters", data.get("rope_parameters"))]
    named = {key: data.get(key) for key in _ROPE_BESIDE}
    for source, values in [*given, ("the file itself", named)]:
        for key, value in (values or {}).items():
            key = "rope_type" if key == "type" else key
            # NaN differs from itself: DecoderConfig refuses it.
            if value is not None and value == value and value != rope.get(key, value):
                raise UserError(
                    f"{key} is {shown(value)} in {source} and {shown(rope[key])} elsewhere: keep the one that is right"
                )
    if (partial := rope.get("partial_rotary_factor")) not in (None, 1.0):
        raise UserError(f"partial_rotary_factor {shown(partial)} is not supported; use a model that rotates all")
    kind = rope.get("rope_type")
    if kind not in ("default", "llama3"):
        raise UserError(f"rope_type {shown(kind)} is not supported; use a model with 'default' or 'llama3'")
    theta = rope.get("rope_theta")
    if kind == "default":
        return theta, None  # DecoderConfig refuses a theta that is no number
    try:
        return theta, Llama3Scaling(**{name: rope[name] for name in Llama3Scaling.__annotations__})
    except (KeyError, TypeError) as error:
        raise UserError(f"rope_parameters {shown(rope)} lacks or garbles a value of 'llama3' ({error})") from None


def _layer_windows(data: Mapping[str, Any], read: Any, family: Family) -> tuple[int | None, ...]:
    """The window of each layer as transformers decides; empty if none has one."""
    layers = read.num_hidden_layers
    if family.windows == "none":
        neutral = {
            "use_sliding_window": (None, False),
            "sliding_window": (None,),
            "layer_types": (None, [_FULL] * layers),
        }
        for name, values in neutral.items():
            if (given := data.get(name)) not in values:
                raise UserError(
                    f"{name} {shown(given)} is not supported for model_type {family.model_type!r}; use full attention"
                )
        return ()
    window, kinds, first = read.sliding_window, getattr(read, "layer_types", None), data.get("max_window_layers")
    if kinds and (len(kinds) != layers or set(kinds) - {_FULL, _SLIDING} or (_SLIDING in kinds and window is None)):
        raise UserError(
            f"layer_types {shown(sorted(set(kinds)))} for {len(kinds)} of {layers} layers is not supported; use "
            f"{_FULL!r}, or {_SLIDING!r} together with use_sliding_window and sliding_window"
        )
    if window is None:
        return ()
    if family.windows == "every_layer":
        if first or _FULL in (kinds or ()):
            raise UserError(
                f"max_window_layers {shown(first)} and layer_types {shown(kinds)} with use_sliding_window mean "
                f"different things to different versions of transformers for model_type {family.model_type!r}: leave "
                "both out if every layer slides"
            )
        return (window,) * layers
    windows = tuple(window if kind == _SLIDING else None for kind in kinds or ())
    return windows if any(entry is not None for entry in windows) else ()
