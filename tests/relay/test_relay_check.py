"""Adapters that a server would die of or misread are refused before it sees them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from relay_disks import write_adapter
from safetensors.numpy import load_file, save_file

from trace_jax.errors import UserError
from trace_jax.relay.check import check_adapter

Tensors = dict[str, np.ndarray]
LAYER = "base_model.model.model.layers.1"


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if not any(part in name for part in parts)}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def also(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: np.zeros(shape, np.float32)}


def test_plain_lora_passes_in_float32_bfloat16_and_on_experts(tmp_path: Path) -> None:
    check_adapter("a", write_adapter(tmp_path))
    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    check_adapter("a", tmp_path)
    experts = {name.replace("self_attn.q_proj", "mlp.experts.7.down_proj"): value for name, value in tensors.items()}
    save_file(without("k_proj", "v_proj")(experts), tmp_path / WEIGHTS)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["down_proj"]}))
    check_adapter("a", tmp_path)


WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"use_dora": True}, "use_dora True"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"r": 0}, "r 0"),
        ({"r": 3}, "but r 3"),
        ({"r": True}, "r True"),
        ({"r": 4.0}, "r 4.0"),
        ({"r": -4}, "r -4"),
        ({"r": None}, "r None"),
        ({"lora_alpha": "16"}, "lora_alpha '16': it must be a finite number above 0"),
        ({"lora_alpha": True}, "lora_alpha True"),
        ({"lora_alpha": 0}, "lora_alpha 0"),
        ({"lora_alpha": -8}, "lora_alpha -8"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha inf"),
        ({"lora_alpha": 1e39}, "lora_alpha 1e+39"),
        ({"lora_alpha": 10**400}, "it must be a finite number above 0"),
        ({"target_modules": "all-linear"}, "'all-linear': servers need a list"),
        ({"target_modules": r".*\.q_proj"}, "servers need a list"),
        ({"target_modules": ["q_proj", "v_proj"]}, "has target_modules ['q_proj', 'v_proj'], but tensors of ['k_proj'"),
        ({"target_modules": [["q_proj"]]}, "servers need a list"),
    ],
)
def test_odd_settings_are_refused(tmp_path: Path, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        check_adapter("odd@1", write_adapter(tmp_path, **settings))


@pytest.mark.parametrize(
    "change,words",
    [
        (
            without("layers.1.self_attn.q_proj"),
            "model.layers.1.self_attn adapts k_proj, v_proj: SGLang takes q_proj and v_proj together",
        ),
        (without("layers.1.self_attn.v_proj"), "self_attn adapts k_proj, q_proj: SGLang takes"),
        (without("layers.1.self_attn.k_proj.lora_B"), "one half of model.layers.1.self_attn.k_proj"),
        (renamed("lora_A", "lora_magnitude_vector"), "which is not LoRA's"),
        (renamed("base_model.model.", ""), "which is not LoRA's"),
        (also("base_model.model.lm_head.weight", 8, 8), "lm_head.weight', which is not LoRA's"),
        (also(f"{LAYER}.mlp.up_proj.lora_A.weight", 4, 8, 2), "of shape (4, 8, 2)"),
        (lambda tensors: {name: value.T.copy() for name, value in tensors.items()}, "but r 4"),
        (lambda tensors: {}, "but tensors of []"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Tensors], Tensors], words: str) -> None:
    write_adapter(tmp_path)
    changed = change(load_file(tmp_path / WEIGHTS))
    save_file(changed, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=re.escape(words)):
        check_adapter("odd@1", tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: type) -> None:
    write_adapter(tmp_path)
    tensors = {name: tensor.astype(dtype) for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    check_adapter("a", tmp_path)
    last = sorted(tensors)[-1]
    tensors[last][-1, -1] = value
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=re.escape(f"tensor {last} with NaN or infinity")):
        check_adapter("odd@1", tmp_path)


def test_a_bad_weight_far_into_a_large_tensor_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_jax.relay.weights._CHUNK", 100)
    write_adapter(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    check_adapter("a", tmp_path)
    tensors[f"{LAYER}.self_attn.v_proj.lora_B.weight"][60, 2] = np.nan
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="v_proj.lora_B.weight with NaN"):
        check_adapter("odd@1", tmp_path)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    save_file(
        {name: value.astype(np.int8) for name, value in load_file(tmp_path / WEIGHTS).items()}, tmp_path / WEIGHTS
    )
    with pytest.raises(UserError, match="of type I8: save it as F32, F16 or BF16"):
        check_adapter("odd@1", tmp_path)


def test_up_without_gate_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path, target_modules=["up_proj"])
    only = renamed("self_attn.q_proj", "mlp.up_proj")(without("k_proj", "v_proj")(load_file(tmp_path / WEIGHTS)))
    save_file(only, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"up_proj without gate_proj"):
        check_adapter("odd@1", tmp_path)


@pytest.mark.parametrize("file,words", [(WEIGHTS, "damaged"), ("adapter_config.json", "not JSON")])
def test_torn_files_are_refused(tmp_path: Path, file: str, words: str) -> None:
    path = write_adapter(tmp_path) / file
    whole = path.read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=words):
            check_adapter("odd@1", tmp_path)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(UserError):
        check_adapter("odd@1", tmp_path)
