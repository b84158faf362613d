"""The adapters of an embedded engine, in the two forms that its steps take: a stack, or merged into the weights."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.engines.embedded.steps import Params, decoder_params
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, target_shapes

BASE = -1  # the adapter id of the base model

_MERGED_KEPT = 2


@jax.jit
def _merged(layers: list[dict[str, jax.Array]], lora: LoRA) -> list[dict[str, jax.Array]]:
    """W + scale · a b for every target of the adapter, in every layer."""

    def merge(weight: jax.Array, pair: dict[str, jax.Array], index: int) -> jax.Array:
        return (weight + lora.scale[0] * (pair["a"][0, index] @ pair["b"][0, index])).astype(weight.dtype)

    return [{t: merge(layer[t], pair, i) for t, pair in lora.weights.items()} for i, layer in enumerate(layers)]


class AdapterTable:
    """Adapters by name, padded to the same rank and stacked, so that loading an adapter never changes a shape.

    If all rows of a step use the same adapter, the step runs on merged weights, at the base model's cost. If they use
    several adapters, it runs on the stack.
    """

    def __init__(self, decoder: Decoder, config: DecoderConfig, max_adapters: int, max_rank: int) -> None:
        self._params = decoder_params(decoder)
        self._config, self._max_rank = config, max_rank
        self._names: list[str | None] = [None] * max_adapters
        dtype = decoder.embed[...].dtype
        self._stack = {}
        for target, (*experts, fan_in, fan_out) in target_shapes(config).items():
            lead = (max_adapters, config.num_layers, *experts)
            self._stack[target] = {
                "a": np.zeros((*lead, fan_in, max_rank), dtype),
                "b": np.zeros((*lead, max_rank, fan_out), dtype),
            }
        self._scale = np.zeros(max_adapters, np.float32)
        self._targets: list[tuple[str, ...]] = [()] * max_adapters
        self._device_stack: LoRA | None = None
        self._merged: OrderedDict[int, Params] = OrderedDict()

    def id(self, name: str | None) -> int:
        """The id of a loaded adapter; None is the base."""
        if name is None:
            return BASE
        if name not in self._names:
            raise EngineError(f"adapter {name!r} is not loaded: load_adapter it first (loaded: {self.names})")
        return self._names.index(name)

    @property
    def names(self) -> list[str]:
        """Names of the loaded adapters."""
        return [name for name in self._names if name is not None]

    def add(self, name: str, lora: LoRA) -> None:
        """Add ``lora`` (A = 1, any targets, rank at most ``max_rank``) under a name that is not in use.

        Raises EngineError for a name in use, no room, a rank above ``max_rank``, weights that are not finite, and an
        adapter of another base.
        """
        if name in self._names:
            raise EngineError(f"adapter name {name!r} is in use: names are immutable, choose a new one or unload it")
        if None not in self._names:
            raise EngineError(
                f"no room for adapter {name!r}: the engine holds {len(self._names)}, its maximum; unload one first"
            )
        if lora.num_adapters != 1 or lora.rank > self._max_rank:
            raise EngineError(
                f"adapter {name!r} holds {lora.num_adapters} adapters of rank {lora.rank}: "
                f"the engine takes one of rank at most {self._max_rank}"
            )
        given: LoRA = jax.tree.map(lambda leaf: np.asarray(leaf)[0], lora)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(given)):
            # In a mixed batch every row is multiplied with every adapter, and zero times NaN is NaN.
            raise EngineError(f"adapter {name!r} has weights that are not finite: take an earlier checkpoint")
        index, R = self._names.index(None), lora.rank
        for target, pair in self._stack.items():
            for part, held in pair.items():
                held[index] = 0
                if target not in given.weights:
                    continue
                new = given.weights[target][part]
                room = held[index][..., :R] if part == "a" else held[index][..., :R, :]
                if new.shape != room.shape:
                    raise EngineError(
                        f"adapter {name!r} was made for another base: its {target}.{part} has shape {new.shape}, "
                        f"expected {room.shape}"
                    )
                room[...] = new
        self._scale[index], self._targets[index] = float(given.scale), lora.targets
        self._names[index] = name
        self._device_stack = None

    def remove(self, name: str) -> int:
        """Remove an adapter. Returns the id that it had."""
        index = self.id(name)
        self._names[index] = None
        self._merged.pop(index, None)
        return index

    def weights(self, ids: set[int]) -> tuple[Params, LoRA | None]:
        """Parameters and stack for rows that use the adapters ``ids``. The stack is None if there is only one id."""
        if ids == {BASE}:
            return self._params, None
        if len(ids) > 1:
            if self._device_stack is None:
                self._device_stack = LoRA(jax.tree.map(jnp.asarray, self._stack), jnp.asarray(self._scale))
            return self._params, self._device_stack
        (index,) = ids
        if index not in self._merged:
            targets, here, old = self._targets[index], slice(index, index + 1), self._params["layers"]
            pairs = {target: self._stack[target] for target in targets}
            lora = LoRA(jax.tree.map(lambda x: x[here], pairs), jnp.asarray(self._scale[here]))
            new = _merged([{target: layer[target] for target in targets} for layer in old], lora)
            layers = [{**layer, **merged} for layer, merged in zip(old, new, strict=True)]
            self._merged[index] = {**self._params, "layers": layers}
        self._merged.move_to_end(index)
        while len(self._merged) > _MERGED_KEPT:
            self._merged.popitem(last=False)
        return self._merged[index], None
