"""GGUF files as llama.cpp's converter writes them, made with the gguf package."""

import json
from pathlib import Path

import gguf
import numpy as np
from chatml_tokenizer import SPECIALS
from tokenizers import Tokenizer
from torch_reference import torch_model
from transformers import PreTrainedModel

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}  # fmt: skip


def gguf_model(rng: np.random.Generator, tokenizer: Tokenizer, tied: bool) -> PreTrainedModel:
    """Widths in blocks of 32, as quantisation needs them."""
    sizes = dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=96)
    return torch_model("llama", tied, int(rng.integers(2**31)), **sizes, rope_theta=float(rng.uniform(1e3, 1e6)))


def write_gguf(
    path: Path,
    reference: PreTrainedModel,
    tokenizer: Tokenizer,
    kind: str,
    architecture: str = "llama",
    pre: str = "smollm",
    spoil: str = "",
) -> None:
    """As llama.cpp's converter writes a Llama model: the halves of every query and key head interleaved."""
    config, writer = reference.config, gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, value in reference.state_dict().items():
        if config.tie_word_embeddings and name.startswith("lm_head"):
            continue
        stem = name.removesuffix(".weight")
        module = ".".join(stem.split(".")[3:]) or stem
        layer = f"blk.{stem.split('.')[2]}." if module != stem else ""
        array = value.numpy()
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        if module in heads:
            array = array.reshape(heads[module], 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if spoil == module:
            array = array * np.nan
        name = f"{layer}{NAMES[module]}.weight"
        if kind == "F32" or array.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(array))
        else:
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
