"""From a config and adapter manifests to an engine that serves them."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from trace_jax.chat.loading import load_renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.storage import PathLike
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Engine
from trace_jax.engines.sglang.engine import ATTEMPTS, SGLangEngine
from trace_jax.engines.sglang.server import ServerFailed, SGLangServer
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, layer_shapes
from trace_jax.models.formats.huggingface import load, read_config, revision
from trace_jax.models.formats.peft import load_peft
from trace_jax.models.formats.writing import CONFIG
from trace_jax.models.lora import LoRA
from trace_jax.models.sharding import check_mesh, param_specs, shardings
from trace_jax.parallel.processes import from_first, require_same
from trace_jax.relay.files import API_KEY
from trace_jax.rollout.agent import Limits
from trace_jax.training.publish import Publisher

DTYPES = ("float32", "bfloat16")
ENGINES = ("embedded", "sglang")
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

    With several processes all call it, and each reads what its own devices hold. Raises UserError when no model is
    named, something of it cannot be used, the mesh does not fit it, or processes see different models.
    """
    if not config.base.path:
        raise UserError(
            "config.base.path is empty: name the Hugging Face directory of the base, --config.base.path=DIR"
        )
    if config.base.dtype not in DTYPES:
        raise UserError(f"config.base.dtype is {config.base.dtype!r}: use one of {', '.join(DTYPES)}")
    directory = Path(config.base.path)
    shape, where = read_config(directory), None
    require_same(f"the model in {directory}", _outline(directory))
    if mesh is not None:
        check_mesh(shape, mesh)
        where = shardings(mesh, param_specs(shape, tuple(layer_shapes(shape))))
    decoder, shape = load(directory, config.base.dtype, where)
    name = from_first(lambda: revision(directory).encode()).decode()
    return Base(decoder, shape, name, load_renderer(directory, config.rollout.thinking))


def _outline(directory: Path) -> bytes:
    """What tells apart two models that should be one, without reading the weights."""
    sizes = sorted((path.name, path.stat().st_size) for path in directory.glob("*.safetensors"))
    return (directory / CONFIG).read_bytes() + repr(sizes).encode()


def load_adapters(manifests: Manifests, base: Base) -> dict[str, LoRA]:
    """The adapters by name. Raises UserError for one of another base, or a name used twice."""
    found: dict[str, LoRA] = {}
    for path, manifest in manifests:
        if manifest.base != base.revision:
            raise UserError(f"{path}: adapter of base {manifest.base}, the model is {base.revision}: use its own base")
        if manifest.name in found:
            raise UserError(f"{path}: a second adapter is called {manifest.name!r}; names are unique: leave one out")
        found[manifest.name] = load_peft(path.parent / manifest.peft, base.config)
    return found


def make_engine(config: ConfigDict, base: Base, *, max_adapters: int = 1, max_rank: int = 1) -> Engine:
    """The engine that ``config.engine`` names. ``max_adapters`` of ``max_rank`` find room in an embedded one."""
    check_engine(config)
    settings = config.engine
    if settings.kind == "sglang":
        engine = sglang_engine(
            config, base.config, base.renderer.stop_token_ids, attempts=ATTEMPTS, wait_seconds=settings.wait_seconds
        )
        return asyncio.run(engine)
    return embedded_engine(config, base, max_adapters=max_adapters, max_rank=max_rank)


async def sglang_engine(
    config: ConfigDict, shape: DecoderConfig, stop_token_ids: Sequence[int], *, attempts: int, wait_seconds: float
) -> SGLangEngine:
    """The engine of the servers in ``config.engine.url``, and of the relays beside them."""
    settings, key = config.engine, os.environ.get(API_KEY)
    urls, offset = await server_urls(settings.url, key), settings.relay_port_offset
    return SGLangEngine(
        urls,
        shape,
        stop_token_ids,
        relays=() if offset is None else [relay_url(url, offset) for url in urls],
        api_key=key,
        slots=settings.slots,
        capacity=settings.capacity,
        attempts=attempts,
        request_seconds=settings.request_seconds,
        wait_seconds=wait_seconds,
    )


def embedded_engine(config: ConfigDict, base: Base, *, max_adapters: int, max_rank: int) -> EmbeddedEngine:
    """The engine in this process, with room for ``max_adapters`` of ``max_rank``."""
    return EmbeddedEngine(
        base.decoder,
        base.config,
        base.renderer.stop_token_ids,
        slots=config.engine.slots,
        capacity=config.engine.capacity,
        max_rank=max_rank,
        max_adapters=max_adapters,
    )


@contextmanager
def serve(config: ConfigDict, base: Base, adapters: Mapping[str, LoRA], directory: PathLike) -> Iterator[Engine]:
    """An engine that has all ``adapters`` while the block runs; servers read them below ``directory``."""
    rank, count = max([1, *(lora.rank for lora in adapters.values())]), max(1, len(adapters))
    engine = make_engine(config, base, max_adapters=count, max_rank=rank)
    with Publisher(engine, base.config, base.revision, directory, count) as publisher:
        for name, lora in adapters.items():
            publisher.publish(name, lora)
        yield engine


async def server_urls(given: str, api_key: str | None) -> list[str]:
    """The servers of a comma-separated list; in place of a sglang-router, those behind it.

    Routers (0.3.2) do not hand adapters on to their servers, so that these have to be asked themselves.
    """

    async def behind(url: str) -> list[str]:
        server = SGLangServer(url, 10.0, api_key)
        try:
            found = await server.workers()
        except ServerFailed:  # it is away
            return [url]
        finally:
            await server.close()
        if not found:
            raise UserError(f"{url} is a router without workers: start it with --worker-urls")
        return found

    found = await asyncio.gather(*(behind(url) for url in given.split(",")))
    return list(dict.fromkeys(url for urls in found for url in urls))


def relay_url(server: str, offset: int) -> str:
    """The relay beside a server. Raises UserError for a server whose URL names no port."""
    where = urlsplit(server)
    if where.port is None:
        raise UserError(f"{server} names no port, from which engine.relay_port_offset counts: write HOST:PORT")
    return f"{where.scheme}://{where.netloc.rpartition(':')[0]}:{where.port + offset}"


def check_engine(config: ConfigDict) -> None:
    """Raise UserError for settings of an engine that ``make_engine`` cannot make."""
    settings = config.engine
    if settings.kind not in ENGINES:
        raise UserError(f"engine.kind is {settings.kind!r}: use one of {', '.join(ENGINES)}")
    if settings.kind == "sglang":
        for url in settings.url.split(","):
            if not re.fullmatch(r"https?://[^/,\s]+/?", url):
                raise UserError(
                    f"engine.url {settings.url!r} names no servers: write --config.engine.url=http://HOST:PORT,…"
                )
    for name in ("slots", "request_seconds", "wait_seconds"):
        if not settings[name] > 0:
            raise UserError(f"engine.{name} is {settings[name]}: it has to be positive")
    if settings.capacity < config.rollout.max_episode_tokens:
        raise UserError(
            f"engine.capacity {settings.capacity} is below rollout.max_episode_tokens "
            f"{config.rollout.max_episode_tokens}: longer episodes would break, so raise the one or lower the other"
        )


def limits(config: ConfigDict) -> Limits:
    """The bounds of one episode."""
    return Limits(config.rollout.max_turns, config.rollout.max_episode_tokens, config.rollout.max_seconds)
