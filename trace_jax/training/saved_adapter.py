"""Reads the adapter of a training's checkpoint. The training may go on: nothing in its directory is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.models.lora import LoRA


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter (A = 1), the revision of its base, and how far its training had come."""

    lora: LoRA
    base: str
    step: int
    rollouts: int


def load_saved_adapter(path: PathLike) -> SavedAdapter:
    """The adapter of the Orbax checkpoint at ``path``, a directory ``checkpoints/STEP``, on the first local device.

    The optimiser's state is not read. Raises UserError for a checkpoint that is damaged or incomplete, that has been
    removed, or that is not one of a training of adapters.
    """
    from orbax.checkpoint import v1 as ocp  # slow to import

    directory = epath.Path(path).absolute()
    try:
        metadata: Any = ocp.metadata(directory)
        identity, tree = metadata.custom_metadata["identity"], metadata.metadata
        context = ocp.Context()
        context.pytree.loading.partial_load = True  # the optimiser's state stays where it is
        with context:
            state: Any = ocp.load(
                directory, {"weights": _here(tree["weights"]), "counters": {name: 0 for name in tree["counters"]}}
            )
        return _saved(state, identity)
    except Exception as error:  # Orbax reports damage as KeyError, TypeError, ValueError, OSError, …
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UserError(
            f"{directory}: checkpoint cannot be read ({why}): if its training has not removed it meanwhile, it is "
            "damaged or no adapter's: leave it out"
        ) from error


def _here(tree: Any) -> Any:
    """Shapes and types of arrays, wherever the training had them."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _saved(state: Mapping[str, Any], identity: Mapping[str, Any]) -> SavedAdapter:
    lora = LoRA(state["weights"], jnp.full((1,), identity["alpha"] / identity["rank"], jnp.float32))
    if (lora.num_adapters, lora.rank) != (1, identity["rank"]):
        raise ValueError(f"rank {lora.rank}, of which its identity says {identity['rank']}")
    counters = state["counters"]
    return SavedAdapter(lora, identity["base"], int(counters["step"]), int(counters["rollouts"]))
