"""Tiny random models in transformers, to compare with."""

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)  # fmt: skip

SIZES = dict(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256)  # fmt: skip
EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True)
_FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def torch_model(family: str, tied: bool, seed: int, **changes) -> PreTrainedModel:
    """Unlike the family's defaults: head_dim is not D / N, theta and epsilon are unusual, norms are not 1."""
    torch.manual_seed(seed)
    kind, model = _FAMILIES[family]
    settings = SIZES | dict(head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=tied)
    settings |= (EXPERTS if family == "qwen3_moe" else {}) | changes
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta", 54321.0), **settings.pop("rope", {})}
    config = kind(**settings, rope_parameters=rope)
    reference = model(config).float().eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.15)  # large enough that every part of the network shows in the logits
    return reference


def torch_logits(model, tokens_BT: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens_BT)).logits.float().numpy()
