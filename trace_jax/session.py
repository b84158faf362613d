"""From settings to what episodes are played with: the base model, its renderer, an engine, adapters.

session = open_session(settings)
trajectories = session.play(specs, Recording(path), on_episode)
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from etils import epath
from jax.sharding import Mesh

from trace_jax.chat.loading import load_renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import AdapterManifest, check_adapter
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.chat import ChatEngine
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Engine
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.addresses import relay_url, server_urls
from trace_jax.engines.sglang.engine import ATTEMPTS, SGLangEngine
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
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.spec import EpisodeSpec
from trace_jax.run_settings import RunSettings
from trace_jax.training.publish import Publisher

Manifests = Sequence[tuple[epath.Path, AdapterManifest]]


@dataclass(frozen=True)
class Base:
    """The frozen model with what belongs to it."""

    decoder: Decoder
    config: DecoderConfig
    revision: str
    renderer: Renderer


@dataclass(frozen=True)
class Session:
    """A base and the engine that plays it, as ``settings`` say."""

    settings: RunSettings
    base: Base
    engine: Engine

    def play(
        self, specs: Sequence[EpisodeSpec], recording: Recording, on_episode: Callable[[Trajectory], None]
    ) -> list[Trajectory]:
        """The episodes of ``specs`` in their order. Those that ``recording`` lacks are played and appended to it."""
        return recording.collect(
            specs,
            engine=self.engine,
            renderer=self.base.renderer,
            settings=self.settings.rollout,
            base=self.base.revision,
            on_episode=on_episode,
        )


@dataclass(frozen=True)
class EndpointSession:
    """An endpoint that plays (``engine.kind`` is chat): no base is loaded, and nothing can be trained."""

    settings: RunSettings
    engine: ChatEngine

    @property
    def revision(self) -> str:
        """The base in the trajectories' policy."""
        return self.engine.name

    def play(
        self, specs: Sequence[EpisodeSpec], recording: Recording, on_episode: Callable[[Trajectory], None]
    ) -> list[Trajectory]:
        """As ``Session.play``. The trajectories have no token segments."""
        return recording.collect(
            specs,
            engine=self.engine,
            renderer=None,
            settings=self.settings.rollout,
            base=self.revision,
            on_episode=on_episode,
        )


def open_endpoint(settings: RunSettings) -> EndpointSession:
    """A session by the endpoint ``engine.url``. Raises UserError for an API key that cannot be one."""
    return EndpointSession(settings, ChatEngine(settings.engine))


def open_session(settings: RunSettings, base: Base | None = None, *, adapters: int = 1) -> Session:
    """The base, loaded if it is not given, and an engine.

    The engine has room for every policy version of ``adapters`` adapters that are trained, and for one more adapter.
    """
    base = load_base(settings) if base is None else base
    room = adapters * (settings.training.max_staleness + 1) + 1
    return Session(
        settings, base, make_engine(settings.engine, base, max_adapters=room, max_rank=settings.training.rank)
    )


def load_base(settings: RunSettings, mesh: Mesh | None = None) -> Base:
    """The model in ``base.path``: sharded over ``mesh``, or whole on the default device.

    With several processes all of them call it, and each reads the part that its own devices hold. Raises UserError when
    no model is named, a part of it cannot be used, the mesh does not fit it, or processes see different models; and for
    an engine of kind chat, since nothing that an endpoint plays can be trained on.
    """
    if settings.engine.kind == "chat":
        raise UserError(
            "engine.kind is chat: an endpoint tells no tokens, so its episodes can be analysed and scored, but nothing "
            "can be trained, routed or served with it: use --config.engine.kind=embedded or sglang"
        )
    if not settings.base.path:
        raise UserError(
            "config.base.path is empty: name the Hugging Face directory of the base, --config.base.path=DIR"
        )
    directory = Path(settings.base.path)
    shape, where = read_config(directory), None
    require_same(f"the model in {directory}", _outline(directory))
    if mesh is not None:
        check_mesh(shape, mesh)
        where = shardings(mesh, param_specs(shape, tuple(layer_shapes(shape))))
    decoder, shape = load(directory, settings.base.dtype, where)
    name = from_first(lambda: revision(directory).encode()).decode()
    return Base(decoder, shape, name, load_renderer(directory, settings.rollout.thinking))


def _outline(directory: Path) -> bytes:
    """What tells apart two models that should be one, without reading the weights."""
    sizes = sorted((path.name, path.stat().st_size) for path in directory.glob("*.safetensors"))
    return (directory / CONFIG).read_bytes() + repr(sizes).encode()


def load_adapters(manifests: Manifests, base: Base) -> dict[str, LoRA]:
    """The adapters by name.

    Raises UserError for one of another base, a name used twice, and files that are not those that were trained.
    """
    found: dict[str, LoRA] = {}
    for path, manifest in manifests:
        if manifest.base != base.revision:
            raise UserError(f"{path}: adapter of base {manifest.base}, the model is {base.revision}: use its own base")
        if manifest.name in found:
            raise UserError(f"{path}: a second adapter is called {manifest.name!r}; names are unique: leave one out")
        found[manifest.name] = load_peft(check_adapter(path, manifest), base.config)
    return found


def make_engine(settings: EngineSettings, base: Base, *, max_adapters: int = 1, max_rank: int = 1) -> Engine:
    """The engine that ``settings`` name. An embedded one has room for ``max_adapters`` of rank ``max_rank``."""
    if settings.kind == "sglang":
        return asyncio.run(sglang_engine(settings, base.config, base.renderer.stop_token_ids))
    stop_token_ids = base.renderer.stop_token_ids
    return EmbeddedEngine(
        base.decoder, base.config, stop_token_ids, settings, max_rank=max_rank, max_adapters=max_adapters
    )


async def sglang_engine(
    settings: EngineSettings, shape: DecoderConfig, stop_token_ids: Sequence[int], *, attempts: int = ATTEMPTS
) -> SGLangEngine:
    """The engine of the servers in ``engine.url``, with their relays."""
    key, offset = os.environ.get(API_KEY), settings.relay_port_offset
    urls = await server_urls(settings.url, key)
    relays = () if offset is None else [relay_url(url, offset) for url in urls]
    return SGLangEngine(urls, shape, stop_token_ids, settings, relays=relays, api_key=key, attempts=attempts)


@contextmanager
def serve(settings: RunSettings, base: Base, adapters: Mapping[str, LoRA], directory: PathLike) -> Iterator[Session]:
    """A session whose engine has all ``adapters`` while the block runs. Servers read them below ``directory``."""
    rank, count = max([1, *(lora.rank for lora in adapters.values())]), max(1, len(adapters))
    engine = make_engine(settings.engine, base, max_adapters=count, max_rank=rank)
    with Publisher(engine, model=base.config, base=base.revision, directory=directory, versions=count) as publisher:
        for name, lora in adapters.items():
            publisher.publish(name, lora)
        yield Session(settings, base, engine)
