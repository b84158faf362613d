"""The weights of a base model on disk: which files hold them, and that they fit the model's configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.config_json import CONFIG
from trace_jax.models.formats.fused_experts import split_fused_experts
from trace_jax.models.formats.json_files import read_json, shown
from trace_jax.models.formats.parameters import EMBED, HEAD, parameters
from trace_jax.models.formats.tensors import TensorFiles
from trace_jax.models.formats.writing import INDEX, WEIGHTS

TOKENIZER = "tokenizer.json"


def open_weights(path: Path, config: DecoderConfig) -> TensorFiles:
    """The weights in a directory. Experts that one tensor of a layer holds are readable under their own names.

    Raises UserError unless every tensor of ``config`` is there, with its shape and a float dtype, and no other; and
    for a tokenizer that has more tokens than the model.
    """
    _check_tokenizer(path / TOKENIZER, config)
    files = TensorFiles(weight_files(path))
    split_fused_experts(files, config)
    shapes = {name: parameter.tensor_shape for parameter in parameters(config) for name in parameter.names.flat}
    # Exporters leave two things behind that change nothing: rotary frequencies, and the head of a tied model.
    optional = {"model.rotary_emb.inv_freq"}
    optional |= {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(config.num_layers)}
    files.require(shapes, optional | ({HEAD} if config.tie_embeddings else set()))
    if config.tie_embeddings and HEAD in files.names():
        files.require({**shapes, HEAD: shapes[EMBED]}, optional)
        for start in range(0, config.vocab_size, 1024):
            rows = (slice(start, start + 1024),)
            if not np.array_equal(files.read(HEAD, rows), files.read(EMBED, rows)):
                raise UserError(f"{path}: {HEAD} differs from {EMBED}: set tie_word_embeddings to false in {CONFIG}")
    return files


def weight_files(path: Path) -> list[Path]:
    """The single file if there is one (as transformers decides), else the shards of the index, sorted.

    Raises UserError for an index without shards, or with one outside the directory.
    """
    if (path / WEIGHTS).exists() or not (path / INDEX).exists():
        return [path / WEIGHTS]
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path / INDEX} has no weight_map: download it again")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise UserError(
                f"{path / INDEX} says that {shown(name)} holds tensor {shown(tensor)}, which is no file beside it: "
                "download it again"
            )
    return [path / name for name in sorted(set(weight_map.values()))]


def _check_tokenizer(path: Path, config: DecoderConfig) -> None:
    """Raise UserError if a tokenizer beside the model has ids that the model's vocabulary lacks."""
    if not path.exists():
        return
    if (largest := max(_token_ids(read_json(path)), default=-1)) >= config.vocab_size:
        raise UserError(
            f"{path} has token ids up to {largest}, the model's vocab_size is {config.vocab_size}: "
            f"put the model's own tokenizer there, or its own {CONFIG}"
        )


def _token_ids(data: dict[str, Any]) -> Iterator[int]:
    """The ids that a ``tokenizer.json`` mentions. Other errors in it are left to the tokenizer's loader."""
    model, added = data.get("model"), data.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # a Unigram model's, in the order of the ids
        yield len(vocab) - 1
    entries = [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    for number in [*(vocab.values() if isinstance(vocab, dict) else ()), *entries]:
        if isinstance(number, int):
            yield number
