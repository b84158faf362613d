"""Models of random weights on disk, written without the code under test."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.config_json import config_to_json

Tensors = dict[str, np.ndarray]


def random_tensors(config: DecoderConfig, rng: np.random.Generator, dtype: type = np.float32) -> Tensors:
    """Every tensor of a Hugging Face checkpoint by name, matrices ``[out, in]``."""
    D, H = config.hidden_size, config.head_dim
    queries, keys = config.num_heads * H, config.num_kv_heads * H
    shapes = {"model.embed_tokens.weight": (config.vocab_size, D), "model.norm.weight": (D,)}
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, D)
    for layer in range(config.num_layers):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}{name}.weight": (D,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (keys, D) for name in "kv"}
        shapes |= {f"{at}self_attn.q_proj.weight": (queries, D), f"{at}self_attn.o_proj.weight": (D, queries)}
        if config.qk_norm:
            shapes |= {f"{at}self_attn.{name}_norm.weight": (H,) for name in "qk"}
        modules, F = ["mlp."], config.intermediate_size
        if config.num_experts:
            modules, F = [f"mlp.experts.{e}." for e in range(config.num_experts)], config.moe_intermediate_size
            shapes[f"{at}mlp.gate.weight"] = (config.num_experts, D)
        for module in modules:
            shapes |= {f"{at}{module}{name}_proj.weight": (F, D) for name in ("gate", "up")}
            shapes[f"{at}{module}down_proj.weight"] = (D, F)
    return {name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()}


def write_random(directory: Path, config: DecoderConfig, rng: np.random.Generator, dtype: type = np.float32) -> Tensors:
    """Write a whole model; returns its tensors."""
    directory.mkdir(parents=True)
    tensors = random_tensors(config, rng, dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config_to_json(config)))
    return tensors


def expected_params(config: DecoderConfig, tensors: Tensors) -> dict:
    """The tree of parameters that these tensors make, float32."""

    def stacked(template: str, turned: bool) -> np.ndarray:
        def one(layer: int) -> np.ndarray:
            name = f"model.layers.{layer}.{template}.weight"
            if "{e}" in template:
                return np.stack([tensors[name.replace("{e}", str(e))].T for e in range(config.num_experts)])
            return tensors[name].T if turned else tensors[name]

        return np.stack([one(layer) for layer in range(config.num_layers)]).astype(np.float32)

    names = {"input_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
    names |= {f"{name}_proj": f"self_attn.{name}_proj" for name in "qkvo"}
    names |= {f"{name}_norm": f"self_attn.{name}_norm" for name in "qk"} if config.qk_norm else {}
    mlp = "mlp.experts.{e}." if config.num_experts else "mlp."
    names |= {f"{name}_proj": f"{mlp}{name}_proj" for name in ("gate", "up", "down")}
    names |= {"router": "mlp.gate"} if config.num_experts else {}
    params = {
        "embed": tensors["model.embed_tokens.weight"].astype(np.float32),
        "layers": {ours: stacked(theirs, turned=not ours.endswith("norm")) for ours, theirs in names.items()},
        "final_norm": tensors["model.norm.weight"].astype(np.float32),
    }
    return params if config.tie_embeddings else params | {"lm_head": tensors["lm_head.weight"].astype(np.float32)}
