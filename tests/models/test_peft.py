"""Adapters against PEFT, in both directions, and files that must be refused."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from forward import noisy_lora, our_logits
from safetensors.numpy import load_file, save_file
from torch_reference import torch_logits, torch_model
from transformers import AutoModelForCausalLM

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats import peft_config
from trace_jax.models.formats.huggingface import load, read_config
from trace_jax.models.formats.peft import load_peft, save_peft
from trace_jax.models.lora import TARGETS, merge, stack

CONFIG = DecoderConfig(97, 32, 3, 4, 2, 16, 48)
UNSUPPORTED = {  # of LoraConfig, what makes an adapter compute something else than scale · x a b
    "alora_invocation_tokens": [1],
    "arrow_config": {"top_k": 2},
    "bias": "lora_only",
    "fan_in_fan_out": True,
    "kasa_config": {"beta": 1},
    "layer_replication": [[0, 1]],
    "layers_to_transform": 0,
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "monteclora_config": {"x": 1},
    "trainable_token_indices": [1],
    "use_bdlora": {"x": 1},
    "use_dora": True,
    "use_qalora": True,
    "use_rslora": True,
    "of_a_later_peft": 1,
}


def setup_module():
    """PEFT takes seconds to import: only the process that runs this file does it."""
    global peft
    peft = pytest.importorskip("peft")


@pytest.mark.parametrize(
    "family,rank,alpha,targets",
    [
        ("qwen3", 4, 10.5, TARGETS),
        ("llama", 8, 16.0, ("v_proj", "gate_proj")),
        ("qwen3_moe", 3, 10.5, TARGETS),
        ("qwen3_moe", 4, 6.0, ("q_proj", "down_proj")),
    ],
)
def test_exported_adapters_compute_the_same_in_peft(family, rank, alpha, targets, rng, tmp_path):
    reference = torch_model(family, True, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    lora, tokens = noisy_lora(rng, config, rank, alpha, targets), rng.integers(0, 97, (2, 15))
    base = torch_logits(reference, tokens)
    save_peft(lora, config, tmp_path / "adapter", base=str(tmp_path / "base"))
    loaded = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()
    expected = torch_logits(loaded, tokens)
    assert np.abs(expected - base).max() > 0.5
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), expected, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path / "adapter", config, str(tmp_path / "base")), lora)


EXPERT_TARGETS = ("gate_proj", "up_proj", "down_proj")


class Experts(torch.nn.Module):
    """A mixture of experts that are modules of their own, as transformers 4 built them."""

    def __init__(self, block, config) -> None:
        super().__init__()
        self.gate = block.gate
        fused = block.experts
        self.experts = torch.nn.ModuleList()
        for gate_up, down in zip(fused.gate_up_proj, fused.down_proj, strict=True):
            expert = torch.nn.Module()
            for name, weight in zip(EXPERT_TARGETS, (*gate_up.chunk(2), down), strict=True):
                linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight.data = weight.data.clone()
                expert.add_module(name, linear)
            self.experts.append(expert)

    def forward(self, hidden):
        rows = hidden.reshape(-1, hidden.shape[-1])
        _, weights, chosen = self.gate(rows)
        out = torch.zeros_like(rows)
        for index, expert in enumerate(self.experts):
            row, rank = torch.where(chosen == index)
            x = rows[row]
            y = expert.down_proj(torch.nn.functional.silu(expert.gate_proj(x)) * expert.up_proj(x))
            out.index_add_(0, row, y * weights[row, rank, None])
        return out.reshape(hidden.shape)


def with_separate_experts(model):
    for layer in model.model.layers:
        layer.mlp = Experts(layer.mlp, model.config)
    model.config.model_type = "separate_experts"  # else PEFT converts adapters to fused experts
    return model


@pytest.mark.parametrize("targets", [EXPERT_TARGETS, ("gate_proj", "q_proj"), ("up_proj",), ("gate_proj", "up_proj")])
def test_any_adapters_of_experts_compute_the_same_where_experts_are_modules(targets, rng, tmp_path):
    seed = int(rng.integers(2**31))
    reference = torch_model("qwen3_moe", False, seed)
    reference.save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    lora, tokens = noisy_lora(rng, config, 3, 7.5, targets), rng.integers(0, 97, (2, 15))
    base = torch_logits(reference, tokens)
    separate = with_separate_experts(reference)
    np.testing.assert_allclose(torch_logits(separate, tokens), base, atol=1e-5)
    save_peft(lora, config, tmp_path / "adapter", base=str(tmp_path / "base"))
    expected = torch_logits(peft.PeftModel.from_pretrained(separate, tmp_path / "adapter").eval(), tokens)
    assert np.abs(expected - base).max() > 0.05
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), expected, atol=1e-4)


def test_adapters_trained_on_separate_experts_are_imported(rng, tmp_path):
    reference = torch_model("qwen3_moe", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    tokens = rng.integers(0, 97, (2, 15))
    settings = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["down_proj", "gate_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(with_separate_experts(reference), settings).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    lora = load_peft(tmp_path / "adapter", config)
    assert lora.weights["gate_proj"]["a"].shape == (1, 3, 6, 32, 3)
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), torch_logits(adapted, tokens), atol=1e-4)


@pytest.mark.parametrize(
    "modules,parameters",
    [
        (["q_proj"], ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        ([], ["mlp.experts.gate_up_proj"]),
        (["o_proj"], ["mlp.experts.down_proj"]),
        (
            ["q_proj", "gate_proj", "up_proj", "down_proj"],
            [],
        ),  # converted by PEFT, with twice the rank for gate_up_proj
    ],
)
def test_adapters_trained_on_fused_experts_are_imported(modules, parameters, rng, tmp_path):
    reference = torch_model("qwen3_moe", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    tokens = rng.integers(0, 97, (2, 15))
    base = torch_logits(reference, tokens)
    settings = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=modules, target_parameters=parameters, task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(reference, settings).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = torch_logits(adapted, tokens)
    assert np.abs(expected - base).max() > 0.3
    lora = load_peft(tmp_path / "adapter", config)
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), expected, atol=1e-4)
    save_peft(lora, config, tmp_path / "again", base="base")
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path / "again", config), lora)


def test_unknown_parameters_and_patterns_are_refused_by_name(rng, tmp_path):
    config = DecoderConfig(
        97, 32, 2, 4, 2, 16, 48, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    )
    save_peft(noisy_lora(rng, config, 4, 8.0), config, tmp_path, base="base")
    settings = tmp_path / "adapter_config.json"
    original = json.loads(settings.read_text())
    pattern, fused = r".*\.gate_up_proj", ["gate_up_proj", "down_proj"]

    def refused(words, config=config, **changes):
        settings.write_text(json.dumps(original | changes))
        with pytest.raises(UserError, match=words):
            load_peft(tmp_path, config)

    refused("target_parameters .*mlp.gate.weight", target_parameters=["mlp.gate.weight"])
    refused("target_parameters .*gate_up_proj", config=CONFIG, target_parameters=fused)
    refused("rank_pattern .*8.* and alpha_pattern {}", target_parameters=fused, rank_pattern={pattern: 8})
    refused("alpha_pattern .*q_proj", target_parameters=fused, alpha_pattern={"q_proj": 3})
    refused("lacks tensor .*experts.base_layer.lora_A", target_modules=[], target_parameters=fused)


def trained(reference, directory, **settings):
    """The model with an adapter of these settings and random weights, which PEFT writes to ``directory``."""
    adapted = peft.get_peft_model(reference, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    adapted.save_pretrained(directory)
    return adapted


ALL = list(TARGETS)


@pytest.mark.parametrize(
    "targets,excluded,expected",
    [
        (["down_proj", "q_proj", "o_proj"], None, {"down_proj", "q_proj", "o_proj"}),
        (r".*\.(q_proj|v_proj)", None, {"q_proj", "v_proj"}),
        (r"model\.layers\.[02]\.mlp\.up_proj|.*o_proj", None, {"up_proj", "o_proj"}),
        (ALL, ["k_proj"], set(TARGETS) - {"k_proj"}),
        (ALL, r".*\.(mlp\..*|self_attn\.o_proj)", {"q_proj", "k_proj", "v_proj"}),
        (ALL, ["layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"], set(TARGETS)),
        (["model.layers.0.self_attn.q_proj", "model.layers.2.mlp.up_proj"], None, {"q_proj", "up_proj"}),
        (["self_attn.q_proj", "layers.1.mlp.gate_proj"], None, {"q_proj", "gate_proj"}),
        ("all-linear", None, set(TARGETS)),
        ("all-linear", ["mlp.up_proj", "0.self_attn.k_proj"], set(TARGETS) - {"up_proj"}),
    ],
)
def test_imported_adapters_compute_the_same_as_in_peft(targets, excluded, expected, rng, tmp_path):
    reference = torch_model("qwen3", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    tokens = rng.integers(0, 97, (2, 15))
    base = torch_logits(reference, tokens)
    adapted = trained(
        reference, tmp_path / "adapter", r=3, lora_alpha=7, target_modules=targets, exclude_modules=excluded,
        lora_dropout=0.1,
    )  # fmt: skip
    lora = load_peft(tmp_path / "adapter", config)
    assert (lora.rank, set(lora.targets)) == (3, expected)
    theirs = torch_logits(adapted, tokens)
    assert np.abs(theirs - base).max() > 0.1
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), theirs, atol=1e-4)
    settings = tmp_path / "adapter" / "adapter_config.json"
    written = json.loads(settings.read_text()) | {"target_modules": targets}  # PEFT writes "all-linear" out
    settings.write_text(json.dumps(written))
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path / "adapter", config), lora)
    save_peft(lora, config, tmp_path / "again", base="base")
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path / "again", config), lora)


def test_all_linear_modules_of_a_mixture_include_its_router_which_is_refused(rng, tmp_path):
    reference = torch_model("qwen3_moe", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "base")
    trained(reference, tmp_path / "adapter", r=3, lora_alpha=7, target_modules="all-linear")
    with pytest.raises(UserError, match="target_parameters .*'gate.weight'.* supported are the experts'"):
        load_peft(tmp_path / "adapter", read_config(tmp_path / "base"))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "OLoRA", "loftq", "corda", "lora_ga", "new", 3])
def test_initialisations_that_change_the_base_are_refused(start, rng, tmp_path):
    save_peft(noisy_lora(rng, CONFIG, 4, 8.0), CONFIG, tmp_path, base="base")
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"init_lora_weights": start}))
    with pytest.raises(UserError, match=f"init_lora_weights {start!r}.*path_initial_model_for_weight_conversion"):
        load_peft(tmp_path, CONFIG)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "Gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_keep_the_base_are_read(start, rng, tmp_path):
    lora = noisy_lora(rng, CONFIG, 4, 8.0)
    save_peft(lora, CONFIG, tmp_path, base="base")
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"init_lora_weights": start}))
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path, CONFIG), lora)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_remedy_for_a_changed_base_works(start, rng, tmp_path):
    """What PEFT converts to plain LoRA computes here what it computes there, on the unchanged base."""
    torch_model("qwen3", False, int(rng.integers(2**31))).save_pretrained(tmp_path / "base")
    decoder, config = load(tmp_path / "base")
    reference, tokens = AutoModelForCausalLM.from_pretrained(tmp_path / "base"), rng.integers(0, 97, (2, 15))
    settings = peft.LoraConfig(r=3, lora_alpha=7, target_modules=ALL, init_lora_weights=start, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(reference, settings).eval()
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(tmp_path / "initial")
    adapted.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter += torch.randn_like(parameter) * 0.2
    expected = torch_logits(adapted, tokens)
    adapted.save_pretrained(tmp_path / "mutated")
    with pytest.raises(UserError, match=f"init_lora_weights '{start}'"):
        load_peft(tmp_path / "mutated", config)
    adapted.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    lora = load_peft(tmp_path / "adapter", config)
    assert lora.rank == 6 and np.abs(expected - our_logits(decoder, tokens)).max() > 0.1
    np.testing.assert_allclose(our_logits(decoder, tokens, lora), expected, atol=1e-4)


def test_every_field_of_peft_is_accounted_for():
    """A field of LoraConfig that we do not know must be one that is refused when it is set."""
    known = peft_config._READ | peft_config._WITHOUT_EFFECT
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields - known == UNSUPPORTED.keys() - {"of_a_later_peft"}
    assert known - fields == set()


def test_a_merged_adapter_is_exported_too(rng, tmp_path):
    adapters = [noisy_lora(rng, CONFIG, rank, 4.0) for rank in (2, 3)]
    merged = merge(adapters, [0.3, 0.7])
    save_peft(merged, CONFIG, tmp_path, base="base")
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path, CONFIG), merged)


def test_misfitting_adapters_are_refused_by_name(rng, tmp_path):
    save_peft(noisy_lora(rng, CONFIG, 4, 8.0, ("q_proj", "up_proj")), CONFIG, tmp_path, base="small-base")
    settings_path, path = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    settings, tensors, whole = json.loads(settings_path.read_text()), load_file(path), path.read_bytes()
    prefix = "base_model.model.model.layers.1."
    victim = prefix + "mlp.up_proj.lora_B.weight"

    def refused(words, config=CONFIG, base=None, **changes):
        settings_path.write_text(json.dumps(settings | changes))
        with pytest.raises(UserError, match=words):
            load_peft(tmp_path, config, base)

    refused("trained for base 'small-base', not 'other'", base="other")
    refused("layers.3.*missing", config=DecoderConfig(97, 32, 4, 4, 2, 16, 48))
    refused("layers.2.* unknown", config=DecoderConfig(97, 32, 2, 4, 2, 16, 48))
    refused(r"q_proj.lora_A.weight' has shape \(4, 32\)", config=DecoderConfig(97, 64, 3, 4, 2, 16, 48))
    refused(r"shape \(4, 32\), the configuration says \(8, 32\)", r=8)
    for rank in (0, -1, True, None, 4.0, "4", [4]):
        refused("has r .*must be a whole number of at least 1", r=rank)
    for alpha in (0, -8, True, None, "8", math.nan, math.inf, -math.inf, 10**400, 1e300):
        refused("has lora_alpha .*must be a finite number above 0", lora_alpha=alpha)
    refused("lacks tensor .*v_proj", target_modules=["q_proj", "v_proj", "up_proj"])
    refused("holds tensor .*up_proj", target_modules=["q_proj"])
    refused("target_modules .*embed_tokens.*none of the projections", target_modules=["embed_tokens"])
    refused("holds tensor .*up_proj", target_modules=".*q_proj")
    refused("lacks tensor .*v_proj", target_modules=r".*\.(q_proj|v_proj|up_proj)")
    refused("holds tensor .*layers.1.mlp.up_proj", exclude_modules=["layers.1.mlp.up_proj"])
    refused(r"target_modules '\(', which is no regular expression", target_modules="(")
    refused("target_modules .*takes longer than 1 s .*nested repetitions", target_modules=r"(a|[a-z]|\w|\.)*[!?]")
    refused("target_modules 3.*list of module names", target_modules=3)
    refused("exclude_modules .*list of module names", exclude_modules=[3])
    for nothing in (None, [], ""):
        refused("target_modules .*name the modules", target_modules=nothing)
    refused("peft_type 'IA3'", peft_type="IA3")
    refused("use_rslora True", use_rslora=True)
    refused("use_dora True", use_dora=True)
    refused("rank_pattern", rank_pattern={"q_proj": 2})
    refused("alpha_pattern", alpha_pattern={"q_proj": 2})
    for key, value in UNSUPPORTED.items():
        refused(f"has {key} .*train the adapter as plain LoRA", **{key: value})
    path.write_bytes(whole[: int(rng.integers(1, len(whole)))])
    refused("adapter_model.safetensors is truncated")
    save_file({name: value for name, value in tensors.items() if name != victim}, path)
    refused(f"lacks tensor '{victim}'")
    save_file({**tensors, victim: tensors[victim] * np.float32(np.inf)}, path)
    refused("up_proj.lora_B.weight' holds NaN or infinity")
    path.unlink()
    refused("adapter_model.safetensors is missing")


def test_a_router_is_never_adapted(rng, tmp_path):
    config = DecoderConfig(
        97, 32, 2, 4, 2, 16, 48, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    )
    save_peft(noisy_lora(rng, config, 4, 8.0), config, tmp_path, base="base")
    settings, tensors = tmp_path / "adapter_config.json", load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * (4 + 3 * 4) and not any("mlp.gate." in name for name in tensors)
    assert "base_model.model.model.layers.1.mlp.experts.3.gate_proj.lora_A.weight" in tensors
    name = "base_model.model.model.layers.0.mlp.gate.lora_A.weight"
    save_file({**tensors, name: np.zeros((4, 32), np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="holds tensor 'base_model.model.model.layers.0.mlp.gate.lora_A.weight'"):
        load_peft(tmp_path, config)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"target_modules": ["gate", "up_proj"]}))
    with pytest.raises(UserError, match="holds tensor .*target_modules"):
        load_peft(tmp_path, config)


def test_what_cannot_be_exported_is_refused_by_name(rng, tmp_path):
    lora = noisy_lora(rng, CONFIG, 4, 8.0)
    with pytest.raises(UserError, match="2 adapters cannot go into one"):
        save_peft(stack([lora, lora]), CONFIG, tmp_path, base="base")
    with pytest.raises(UserError, match="adapter target '.*_proj' has .*the base has"):
        save_peft(lora, DecoderConfig(97, 64, 3, 4, 2, 16, 48), tmp_path, base="base")
    bad = jax.tree.map(lambda x: x, lora)
    bad.weights["v_proj"]["b"] = bad.weights["v_proj"]["b"].at[0, 1, 2, 3].set(jnp.nan)
    with pytest.raises(UserError, match="'v_proj' holds NaN"):
        save_peft(bad, CONFIG, tmp_path, base="base")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": r".*\.(q_proj|v_proj)"},
        {"target_modules": "all-linear"},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
    ],
)
def test_modules_that_only_peft_understands_are_not_given_to_servers(change):
    peft_config.refuse_unservable("adapter 'x'", {"target_modules": ["q_proj", "v_proj"]}, {"q_proj", "v_proj"})
    with pytest.raises(UserError, match="^adapter 'x' has target_modules .*SGLang needs a list of projections"):
        peft_config.refuse_unservable("adapter 'x'", change, {"q_proj", "v_proj"})
