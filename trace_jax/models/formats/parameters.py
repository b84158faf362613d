"""The decoder's parameters, and the tensors of a Hugging Face checkpoint that each is stacked from."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import layer_shapes

EMBED, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True)
class Parameter:
    """One of the decoder's parameters, and the tensors of the files that it is stacked from."""

    path: tuple[str, ...]  # in the tree of parameters
    shape: tuple[int, ...]
    names: np.ndarray  # of str, its shape the parameter's leading axes: [], [L] or [L, E]
    matrix: bool  # [in, out], stored as [out, in]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of each tensor as stored."""
        shape = self.shape[self.names.ndim :]
        return shape[::-1] if self.matrix else shape

    def dtype(self, dtype: Any) -> Any:
        """What it is held in when the model is held in ``dtype``: a router's choice should not hang on rounding."""
        return np.dtype(jnp.float32 if self.path[-1] == "router" else dtype)


def parameters(config: DecoderConfig) -> list[Parameter]:
    """All parameters of a decoder."""
    V, D = config.vocab_size, config.hidden_size

    def alone(path: str, name: str, *shape: int) -> Parameter:
        return Parameter((path,), shape, np.array(name, object), matrix=False)

    found = [alone("embed", EMBED, V, D), alone("final_norm", NORM, D)]
    if not config.tie_embeddings:
        found.append(alone("lm_head", HEAD, V, D))
    for name, shape in layer_shapes(config).items():
        names = module_names(config, name) + ".weight"
        found.append(Parameter(("layers", name), (config.num_layers, *shape), names, matrix=len(shape) >= 2))
    return found


def module_names(config: DecoderConfig, name: str) -> np.ndarray:
    """Module paths in a checkpoint of one of a layer's parameters: str ``[L]``, or ``[L, E]`` if each expert has one.

    For instance ``model.layers.3.mlp.up_proj``, or ``model.layers.3.mlp.experts.17.up_proj``.
    """
    paths = [f"model.layers.{layer}.{config.family.modules[name]}" for layer in range(config.num_layers)]
    if len(layer_shapes(config)[name]) < 3:
        return np.array(paths, object)
    return np.array([[path.format(expert=expert) for expert in range(config.num_experts)] for path in paths], object)
