"""From a config and adapter manifests to an engine that serves them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.record import ContractError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, layer_shapes
from trace_jax.models.huggingface import TOKENIZER, load, read_config, revision
from trace_jax.models.lora import LoRA
from trace_jax.models.peft import load_peft
from trace_jax.models.sharding import check_mesh, param_specs, shardings
from trace_jax.models.writing import CONFIG
from trace_jax.parallel.processes import from_first, require_same
from trace_jax.rollout.agent import Limits
from trace_jax.rollout.chat import Renderer
from trace_jax.rollout.codec import RenderError
from trace_jax.rollout.embedded import EmbeddedEngine
from trace_jax.rollout.renderers import chat_template, renderer_for

DTYPES = ("float32", "bfloat16")
Manifests = Sequence[tuple[epath.Path, AdapterManifest]]


@dataclass(frozen=True)
class Base:
    """The frozen model with what belongs to it."""

    decoder: Decoder
    config: DecoderConfig
    revision: str
    renderer: Renderer


def load_base(config: ConfigDict, mesh: Mesh | None = None) -> Base:
    """The model in ``config.base.path``: split over ``mesh``, or whole on the default device.

    With several processes all call it, and each reads what its own devices hold. Raises ContractError when no model is
    named, something of it cannot be used, the mesh does not fit it, or processes see different models.
    """
    if not config.base.path:
        raise ContractError(
            "config.base.path is empty: name the Hugging Face directory of the base, --config.base.path=DIR"
        )
    if config.base.dtype not in DTYPES:
        raise ContractError(f"config.base.dtype is {config.base.dtype!r}: use one of {', '.join(DTYPES)}")
    directory = Path(config.base.path)
    shape, where = read_config(directory), None
    require_same(f"the model in {directory}", _outline(directory))
    if mesh is not None:
        check_mesh(shape, mesh)
        where = shardings(mesh, param_specs(shape, tuple(layer_shapes(shape))))
    decoder, shape = load(directory, config.base.dtype, where)
    name = from_first(lambda: revision(directory).encode()).decode()
    return Base(decoder, shape, name, _renderer(directory, config.rollout.thinking))


def _outline(directory: Path) -> bytes:
    """What tells apart two models that should be one, without reading the weights."""
    sizes = sorted((path.name, path.stat().st_size) for path in directory.glob("*.safetensors"))
    return (directory / CONFIG).read_bytes() + repr(sizes).encode()


def _renderer(directory: Path, thinking: bool | None) -> Renderer:
    path = directory / TOKENIZER
    if not path.is_file():
        raise ContractError(f"{path} is missing: put the tokenizer that the model was trained with there")
    try:
        return renderer_for(Tokenizer.from_file(os.fspath(path)), chat_template(directory), thinking)
    except RenderError as error:
        raise ContractError(f"{path}: {error}") from None
    except Exception as error:  # the library raises nothing narrower
        why = " ".join(str(error).split())
        raise ContractError(f"{path} is damaged ({why}): put the model's own tokenizer there again") from None


def load_adapters(manifests: Manifests, base: Base) -> dict[str, LoRA]:
    """The adapters by name. Raises ContractError for one of another base, or a name used twice."""
    found: dict[str, LoRA] = {}
    for path, manifest in manifests:
        if manifest.base != base.revision:
            raise ContractError(
                f"{path}: adapter of base {manifest.base}, the model is {base.revision}: use its own base"
            )
        if manifest.name in found:
            raise ContractError(
                f"{path}: a second adapter is called {manifest.name!r}; names are unique: leave one out"
            )
        found[manifest.name] = load_peft(path.parent / manifest.peft, base.config)
    return found


def embedded_engine(
    base: Base, adapters: Mapping[str, LoRA], config: ConfigDict, *, max_adapters: int = 1, max_rank: int = 1
) -> EmbeddedEngine:
    """An engine that holds all ``adapters``, with room for ``max_adapters`` of ``max_rank`` at least."""
    check_engine(config)
    engine = EmbeddedEngine(
        base.decoder,
        base.config,
        base.renderer.stop_token_ids,
        slots=config.engine.slots,
        capacity=config.engine.capacity,
        max_rank=max([max_rank, *(lora.rank for lora in adapters.values())]),
        max_adapters=max(max_adapters, len(adapters)),
    )
    for name, lora in adapters.items():
        engine.set_adapter(name, lora)
    return engine


def check_engine(config: ConfigDict) -> None:
    """Raise ContractError for settings of an engine that ``embedded_engine`` cannot make."""
    if config.engine.kind != "embedded":
        raise ContractError(
            f"config.engine.kind is {config.engine.kind!r}; these programs play with the embedded engine: "
            "use --config.engine.kind=embedded"
        )
    if config.engine.capacity < config.rollout.max_episode_tokens:
        raise ContractError(
            f"engine.capacity {config.engine.capacity} is below rollout.max_episode_tokens "
            f"{config.rollout.max_episode_tokens}: longer episodes would break, so raise the one or lower the other"
        )


def limits(config: ConfigDict) -> Limits:
    """The bounds of one episode."""
    return Limits(config.rollout.max_turns, config.rollout.max_episode_tokens, config.rollout.max_seconds)
