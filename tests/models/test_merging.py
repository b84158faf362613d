"""Adapters merged into their base: the files against the adapter switched on."""

import json
import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from forward import noisy_lora, our_logits
from programs import run_program
from random_model import write_random
from safetensors.numpy import load_file
from torch_reference import torch_logits, torch_model
from transformers import AutoModelForCausalLM

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.huggingface import load, revision
from trace_jax.models.formats.merging import merge_adapter
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS

ROOT = Path(__file__).parents[2]
CONFIG = DecoderConfig(97, 32, 2, 4, 2, 16, 48)


@pytest.mark.parametrize(
    "family,targets", [("qwen3", TARGETS), ("qwen3_moe", TARGETS), ("qwen3_moe", ("up_proj",)), ("llama", ("o_proj",))]
)
def test_a_merged_model_computes_what_its_base_does_with_the_adapter(family, targets, rng, tmp_path):
    torch_model(family, True, int(rng.integers(2**31))).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    decoder, config = load(tmp_path / "base")
    lora, tokens = noisy_lora(rng, config, 3, 7.5, targets), rng.integers(0, 97, (2, 15))
    save_peft(lora, config, tmp_path / "adapter", base=revision(tmp_path / "base"))
    steps = []
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", lambda *step: steps.append(step))
    expected = our_logits(decoder, tokens, lora)
    assert np.abs(expected - our_logits(decoder, tokens)).max() > 0.3
    np.testing.assert_allclose(our_logits(load(tmp_path / "out")[0], tokens), expected, atol=1e-4)
    theirs = torch_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tokens)
    np.testing.assert_allclose(theirs, expected, atol=1e-4)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    for name in ("config.json", "generation_config.json"):
        kept, original = (json.loads((tmp_path / where / name).read_text()) for where in ("out", "base"))
        assert kept == original
    assert steps[-1][0] == steps[-1][1] == len(load_file(tmp_path / "out" / "model.safetensors"))


def test_the_sum_of_a_bfloat16_model_is_formed_in_float32(rng, tmp_path):
    tensors = write_random(tmp_path / "base", CONFIG, rng, jnp.bfloat16)
    lora = noisy_lora(rng, CONFIG, 4, 2.0, ("up_proj",))
    save_peft(lora, CONFIG, tmp_path / "adapter", base=str(tmp_path / "base"))
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    merged, name = load_file(tmp_path / "out" / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    a, b = (np.asarray(lora.weights["up_proj"][half][0, 1], np.float64) for half in "ab")
    exact = tensors[name].astype(np.float64) + 0.5 * (a @ b).T
    assert merged[name].dtype == jnp.bfloat16
    # at most half a unit in the last of 8 bits, and what float32 rounds
    assert (np.abs(merged[name].astype(np.float64) - exact) <= (2**-8 + 1e-6) * np.abs(exact) + 1e-6).all()
    for other in tensors.keys() - {f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(2)}:
        np.testing.assert_array_equal(merged[other], tensors[other])


def test_a_foreign_base_is_refused_and_nothing_is_written(rng, tmp_path):
    for name in ("own", "foreign"):
        write_random(tmp_path / name, CONFIG, rng)
    save_peft(noisy_lora(rng, CONFIG, 4, 2.0), CONFIG, tmp_path / "adapter", base=revision(tmp_path / "own"))
    with pytest.raises(UserError, match=f"trained for base '{revision(tmp_path / 'own')}', .*foreign has revision"):
        merge_adapter(tmp_path / "foreign", tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="own is the base or the adapter itself"):
        merge_adapter(tmp_path / "own", tmp_path / "adapter", tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "elsewhere")
    merge_adapter(tmp_path / "elsewhere", tmp_path / "adapter", tmp_path / "out")  # the same content is the same base


def test_the_program_merges_and_refuses_in_one_line(rng, tmp_path):
    write_random(tmp_path / "base", CONFIG, rng)
    save_peft(noisy_lora(rng, CONFIG, 4, 2.0), CONFIG, tmp_path / "adapter", base="another model")

    def call(*arguments: str) -> subprocess.CompletedProcess:
        return run_program("launch.merge", f"--base={tmp_path / 'base'}", *arguments)

    missing = call(f"--adapter={tmp_path / 'adapter'}")
    assert (missing.returncode, missing.stderr) == (2, "error: --out is missing: name a directory\n")
    refused = call(f"--adapter={tmp_path / 'adapter'}", f"--out={tmp_path / 'out'}")
    assert refused.returncode == 1 and "error: " in refused.stderr and "'another model'" in refused.stderr
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(settings.read_text().replace("another model", revision(tmp_path / "base")))
    done = call(f"--adapter={tmp_path / 'adapter'}", f"--out={tmp_path / 'out'}")
    assert (done.returncode, done.stdout) == (0, f"merged model: {tmp_path / 'out'}\n"), done.stderr
    assert "merge, percent: 100/100" in done.stderr
    assert load(tmp_path / "out")[1] == CONFIG
