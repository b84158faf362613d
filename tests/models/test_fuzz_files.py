"""Files of models and adapters, damaged at random: each is read, or refused with an error of the project.

The seed is fixed, so that a failure comes back. A thousand inputs run always, 20,000 in the slow tests.
"""

import json
import warnings
import zlib

import numpy as np
import pytest
from forward import noisy_lora
from mutation import mutated_bytes, mutated_json
from random_model import write_random
from transformers import LlamaConfig, Qwen3Config, Qwen3MoeConfig

from trace_jax.errors import TraceError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.checkpoint import open_weights
from trace_jax.models.formats.config_json import config_to_json, read_config
from trace_jax.models.formats.huggingface import revision
from trace_jax.models.formats.peft import load_peft, save_peft

CONFIG = DecoderConfig(32, 8, 2, 2, 1, 4, 8)
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 4}
SMALL = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 8}  # fmt: skip
ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, rope_theta=5e5)
CONFIGS = [
    config_to_json(CONFIG),
    Qwen3Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1).to_dict(),
    Qwen3MoeConfig(**SMALL, **EXPERTS).to_dict(),
    LlamaConfig(**SMALL, rope_parameters=ROPE | {"original_max_position_embeddings": 64}).to_dict(),
    {"model_type": "llama", **SMALL, "rope_scaling": ROPE, "torch_dtype": "bfloat16"},
]


class Counter:
    """How many inputs were read, and how many were refused."""

    def __init__(self) -> None:
        self.read = self.refused = 0

    def __call__(self, read) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
        except TraceError as error:
            message = str(error)
            assert message and "\n" not in message and len(message) < 2000
            message.encode()  # half a surrogate pair could not be printed
            self.refused += 1
        else:
            self.read += 1


def fuzz_configurations(directory, random, count):
    counter = Counter()
    for _ in range(count):
        data = CONFIGS[int(random.integers(len(CONFIGS)))]
        (directory / "config.json").write_bytes(mutated_json(data, random))
        counter(lambda: read_config(directory))
    return counter


def fuzz_checkpoints(directory, random, count):
    write_random(directory / "model", CONFIG, random)
    weights, index = (directory / "model" / name for name in ("model.safetensors", "model.safetensors.index.json"))
    whole = weights.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:header_end])
    counter = Counter()
    for number in range(count):
        if number % 3 == 0:
            text = mutated_json(header, random)
            data = len(text).to_bytes(8, "little") + text + whole[header_end:]
        else:
            data = mutated_bytes(whole, random, header_end if number % 3 == 1 else None)
        if number % 4:
            weights.write_bytes(data)
            counter(lambda: open_weights(directory / "model", CONFIG))
        else:
            weights.unlink(missing_ok=True)
            index.write_bytes(
                mutated_json({"metadata": {}, "weight_map": {"a": "b", "c": "model.safetensors"}}, random)
            )
            counter(lambda: revision(directory / "model"))
    return counter


def fuzz_adapters(directory, random, count):
    save_peft(noisy_lora(random, CONFIG, 2, 4.0, ("q_proj", "up_proj")), CONFIG, directory, base="base")
    settings, weights = directory / "adapter_config.json", directory / "adapter_model.safetensors"
    data, whole = json.loads(settings.read_text()), weights.read_bytes()
    data |= {"init_lora_weights": True, "exclude_modules": None, "rank_pattern": {}, "alpha_pattern": {},
             "target_parameters": None, "layers_to_transform": None, "use_bdlora": None}  # fmt: skip
    header_end = 8 + int.from_bytes(whole[:8], "little")
    counter = Counter()
    for number in range(count):
        settings.write_bytes(mutated_json(data, random) if number % 4 else json.dumps(data).encode())
        weights.write_bytes(whole if number % 4 else mutated_bytes(whole, random, header_end))
        counter(lambda: load_peft(directory, CONFIG))
    return counter


FUZZED = [fuzz_configurations, fuzz_checkpoints, fuzz_adapters]


def run(fuzz, count, directory):
    random = np.random.default_rng(zlib.crc32(fuzz.__name__.encode()) + count)
    counter = fuzz(directory, random, count)
    assert counter.read > count // 50 and counter.refused > count // 50, vars(counter)  # else it would show little


@pytest.mark.parametrize("fuzz", FUZZED)
def test_damaged_files_are_read_or_refused(fuzz, tmp_path):
    run(fuzz, 350, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fuzz", FUZZED)
def test_many_damaged_files_are_read_or_refused(fuzz, tmp_path):
    run(fuzz, 6500, tmp_path)
