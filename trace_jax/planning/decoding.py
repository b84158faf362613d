"""The embedded engine's decode step on the mesh of a training run, as a program to plan."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trace_jax.engines.embedded.cache import new_cache
from trace_jax.engines.embedded.steps import decode_specs, decoder_params, sharded_decode
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA
from trace_jax.parallel.mesh import batch_shards
from trace_jax.planning.compile import Program
from trace_jax.planning.sharded import with_shardings

_NOTES = (
    "one token for every slot, with full caches; it does not count in the time of an optimiser step",
    "the embedded engine decodes on one device; here its slots, heads and experts are split over the mesh",
)


def decode_program(
    model: DecoderConfig, mesh: Mesh, dtype: Any, lora: LoRA, *, slots: int, capacity: int, resident: int
) -> Program:
    """The decode step with ``slots`` slots a device, each with a cache of ``capacity`` tokens.

    ``resident`` counts the bytes that other programs keep on a device (see ``Program``).
    """
    number = slots * batch_shards(mesh)
    params = jax.eval_shape(lambda: decoder_params(Decoder(model, dtype=dtype)))
    cache = jax.eval_shape(lambda: new_cache(model, number, capacity, dtype))
    rows = jax.ShapeDtypeStruct((number, 6), jnp.int32), jax.ShapeDtypeStruct((number,), jnp.float32)
    scalars = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    specs = decode_specs(model, lora.targets)
    arguments = (
        with_shardings(mesh, part, spec)
        for part, spec in zip((params, cache, *rows, *scalars), specs[:-1], strict=True)
    )
    function = sharded_decode(model, mesh, lora.targets)
    return Program("decode", function, (*arguments, lora), mesh, times=0.0, resident=resident, notes=_NOTES)
