"""Serves the adapters of a finished run behind one OpenAI-compatible address.

    python -m launch.serve --config=configs/quickstart.py --workdir=RUN
    python -m launch.serve --config=configs/qwen3_8b.py --workdir=RUN \
        --config.engine.kind=sglang --config.engine.url=http://10.0.0.5:30000,http://10.0.0.6:30000

An agent only changes its base_url to http://HOST:PORT/v1:

    OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").chat.completions.create(model="tiny_agent", messages=…)

Routing. The model with the name of the base is routed: the run's router decides at a conversation's first request which
adapters serve it, and later requests keep this decision. The header X-Trace-Conversation identifies a conversation.
Without the header, its beginning does: all messages up to the first user message, and the tools. "base" and the names
of the adapters are models that are not routed. /v1/models lists all models. RUN/gateway/decisions.jsonl records the
decisions. The response headers X-Trace-Adapter, X-Trace-Router and X-Trace-Conversation name the adapter, the router
and the conversation. With SGLang, X-Trace-Prompt is "training" if the gateway wrote the prompt, and "server" if the
server did.

Engines. The embedded engine answers in this process. With engine.kind sglang each request goes to an SGLang server. The
servers need --enable-lora, the adapters' modules as --lora-target-modules, and the sum of the merged ranks as
--max-lora-rank. As for rollouts, every server has all adapters, verified: it reads them below the path of RUN, or, with
engine.relay_port_offset, gets them from a relay on its machine. A server gets engine.slots requests at a time. The
routing classifier uses the servers as well. A gate reads prompts with the base in this process.

Prompts. Chats are sent to the servers as tokens, written as in training (with rollout.thinking), because SGLang's own
prompts differ if there are tools. The server's template writes the prompt of a request that sets chat_template_kwargs,
reasoning_effort or the name of a tool to call, that contains images, or that has other fields which change the prompt.
trace_gateway_prompts_total{writer="server"} in /metrics counts these requests.

Responses. A response contains tool calls only if the request offers tools. This is also true of agents whose chat
format does not show the tools to the model; they must send their tools nevertheless. Tool calls and thinking are fields
of a message if the servers have a --tool-call-parser and a --reasoning-parser.

Keys. --api_keys=FILE or $TRACE_API_KEYS holds the API keys of clients, $SGLANG_API_KEY the key of the servers. /health
and /metrics (Prometheus) need no key. After SIGTERM running responses may end, for at most --drain_seconds.
"""

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from absl import flags
from etils import epath
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from trace_jax.chat.loading import load_renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import MANIFEST, AdapterManifest, check_adapter
from trace_jax.contract.files import read_document
from trace_jax.contract.lock import locked
from trace_jax.contract.routing import RouteTable
from trace_jax.contract.storage import is_local
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.errors import UserError
from trace_jax.gateway.adapters import Adapters, Held
from trace_jax.gateway.app import make_app
from trace_jax.gateway.backend import Backend
from trace_jax.gateway.connections import guarded, listen
from trace_jax.gateway.decisions import DecisionLog
from trace_jax.gateway.embedded import EmbeddedBackend
from trace_jax.gateway.engine import EngineThread
from trace_jax.gateway.gateway import Gateway
from trace_jax.gateway.keys import KEYS_VARIABLE, read_keys
from trace_jax.gateway.labels import ServerReader
from trace_jax.gateway.limits import Limits
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import Models
from trace_jax.gateway.pinning import Pins
from trace_jax.gateway.prompt_limit import characters_per_token
from trace_jax.gateway.routes import Conversations
from trace_jax.gateway.sglang import ATTEMPTS, WAIT_SECONDS, SGLangBackend
from trace_jax.gateway.shutdown import DrainingServer
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.huggingface import TOKENIZER, read_config, revision
from trace_jax.parallel.termination import Termination
from trace_jax.program import run
from trace_jax.routing.classifier import ClassifierRouter
from trace_jax.routing.features import PromptReader
from trace_jax.routing.load import load_router
from trace_jax.routing.router import Router
from trace_jax.routing.select import SelectionPolicy, make_policy
from trace_jax.routing.table import check_base
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.session import Base, load_base, sglang_engine

HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0 for all")
PORT = flags.DEFINE_integer("port", 8000, "port to listen at; 0 for a free one")
ALIASES = flags.DEFINE_list(
    "aliases", [], "further names of the routed model, for instance the name that an agent already sends"
)
API_KEYS = flags.DEFINE_string("api_keys", "", "file with the keys of clients, one a line; empty: $TRACE_API_KEYS")
MAX_BODY = flags.DEFINE_integer("max_body_mb", 16, "MiB of a request's body")
MAX_REQUESTS = flags.DEFINE_integer("max_requests", 512, "requests served at a time; further ones get status 429")
MAX_CONNECTIONS = flags.DEFINE_integer(
    "max_connections", 1024, "open connections; a further one closes the connection that has been idle longest"
)
SECONDS = flags.DEFINE_float("request_seconds", 600.0, "longest time of a request, its stream included, in seconds")
DRAIN = flags.DEFINE_integer("drain_seconds", 30, "longest time from SIGTERM to the end of the program, in seconds")
CONVERSATIONS = flags.DEFINE_integer("max_conversations", 100_000, "conversations whose decision is remembered")
IDLE = flags.DEFINE_float("conversation_hours", 24.0, "time after which an unused decision is forgotten, in hours")
MAX_MERGED = flags.DEFINE_integer("max_merged", 16, "merges of several adapters that an engine holds at a time")
CORS_ORIGINS = flags.DEFINE_list(
    "cors_origins", [], "origins whose pages may send requests from a browser, such as https://example.com; * for all"
)
LOG_MESSAGES = flags.DEFINE_bool("log_messages", False, "log the bodies of requests, which contain messages")


logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OTHER_FILES = 256  # open files other than connections: models, logs, libraries


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Serve until SIGTERM."""
    if not is_local(workdir):
        raise UserError(f"{workdir}: engines read adapters from a local disk: copy the run to one")
    asyncio.run(_serve(read_settings(config), Path(workdir)))


@dataclass(frozen=True)
class _Engines:
    """The backend that answers, the router that decides, and the shape and revision of their base."""

    backend: Backend
    router: Router
    shape: DecoderConfig
    revision: str


async def _serve(settings: RunSettings, root: Path) -> None:
    _allow_open_files(MAX_CONNECTIONS.value + MAX_REQUESTS.value + _OTHER_FILES)
    table_path, metrics, keys = root / "routing" / "route_table.json", Metrics(), read_keys(API_KEYS.value)
    if not keys and HOST.value not in _LOOPBACK:
        logger.warning(
            "listening at %s without API keys: every client that reaches it is served; set --api_keys or $%s",
            HOST.value,
            KEYS_VARIABLE,
        )
    table = read_document(table_path, RouteTable)
    held = _held(root, table)
    with locked(root / "gateway"), listen(HOST.value, PORT.value) as listener:  # before a model is loaded
        async with AsyncExitStack() as stack:
            if settings.engine.kind == "sglang":
                engines = await _servers(settings, table_path, table, metrics)
            else:
                engines = _embedded(stack, settings, table_path, held)
            adapters = Adapters(
                held, engines.backend, engines.shape, engines.revision, root / "gateway" / "merged", MAX_MERGED.value
            )
            models = Models(engines.backend.name, ALIASES.value, adapters.names)
            await adapters.load()
            log = DecisionLog(root / "gateway" / "decisions.jsonl")
            stack.push_async_callback(log.close)
            pins = Pins(CONVERSATIONS.value, IDLE.value * 3600.0)
            metrics.watch("conversations", "Conversations whose decision is remembered", lambda: len(pins))
            metrics.watch("merges", "Merges that the engine holds", lambda: adapters.merged)
            gateway = Gateway(
                models,
                Conversations(engines.router, adapters, pins, log, metrics),
                adapters,
                engines.backend,
                keys,
                Limits(MAX_BODY.value << 20, MAX_REQUESTS.value, SECONDS.value),
                metrics,
                LOG_MESSAGES.value,
                CORS_ORIGINS.value,
            )
            await _listen(gateway, listener, engines)


async def _listen(gateway: Gateway, listener: socket.socket, engines: _Engines) -> None:
    settings = uvicorn.Config(
        make_app(gateway),
        http=guarded(MAX_CONNECTIONS.value),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    host, port = listener.getsockname()[:2]
    names = ", ".join(gateway.adapters.names) or "no adapter"
    print(
        f"http://{host}:{port}/v1 serves {engines.backend.name!r}, routed by the {engines.router.kind}: {names}",
        flush=True,
    )
    with Termination():  # the server drains at the signal, and raises it again when it is done
        await DrainingServer(settings, DRAIN.value).serve(sockets=[listener])
    print("ended: the gateway's decisions are kept; the same command serves again", file=sys.stderr)


def _allow_open_files(number: int) -> None:
    """Raise the process's limit of open files to ``number``. Raises UserError if the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise UserError(
            f"{number} open files are needed and {hard} allowed: raise ulimit -n, or lower --max_connections"
        )
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def _held(root: Path, table: RouteTable) -> dict[str, Held]:
    """The adapters of the table. Raises UserError if one is missing, was changed or swapped, or has another base."""
    held = {}
    for route in table.routes:
        path = root / "adapters" / route.adapter / MANIFEST
        manifest = read_document(path, AdapterManifest)
        if manifest.base != table.base:
            raise UserError(
                f"{path}: adapter of base {manifest.base}, but the route table is of {table.base}: restore the file"
            )
        if manifest.name != route.adapter:
            raise UserError(
                f"{path}: manifest of adapter {manifest.name!r}, but the table routes to {route.adapter!r}: the "
                "directories of the adapters were swapped: restore them"
            )
        held[route.adapter] = Held(Path(check_adapter(path, manifest)), manifest.rank, manifest.files)
    return held


def _embedded(stack: AsyncExitStack, settings: RunSettings, table_path: Path, held: Mapping[str, Held]) -> _Engines:
    """The embedded engine, with room for every adapter and for the merge of all of them."""
    base, rank = load_base(settings), max(1, sum(adapter.rank for adapter in held.values()))
    router = _router(table_path, base, settings)
    engine = EmbeddedEngine(
        base.decoder,
        base.config,
        base.renderer.stop_token_ids,
        settings.engine,
        max_rank=rank,
        max_adapters=len(held) + MAX_MERGED.value,
    )
    path = Path(settings.base.path).resolve()
    backend = EmbeddedBackend(
        path.name,
        stack.enter_context(EngineThread(engine)),
        base.renderer,
        Tokenizer.from_file(os.fspath(path / TOKENIZER)),
        forms=_forms(path, base.renderer),
        capacity=settings.engine.capacity,
        max_rank=rank,
    )
    return _Engines(backend, router, base.config, base.revision)


async def _servers(settings: RunSettings, table_path: Path, table: RouteTable, metrics: Metrics) -> _Engines:
    """The SGLang servers. This process loads the base only for a gate, which reads its hidden states."""
    path = Path(settings.base.path)
    shape = read_config(path)
    impatient = replace(settings.engine, wait_seconds=WAIT_SECONDS)
    engine = await sglang_engine(impatient, shape, (), attempts=ATTEMPTS)
    servers = await engine.server_info()
    router: Router
    if table.router == "classifier":
        found = revision(path)
        check_base(table, found)
        renderer = load_renderer(path, settings.rollout.thinking)
        reader = ServerReader(engine, min(info.context for info in servers), asyncio.get_running_loop())
        router = ClassifierRouter(table, reader, renderer, _policy(settings))
    else:
        base = load_base(settings)
        found, renderer = base.revision, base.renderer
        router = _router(table_path, base, settings)
    metrics.watch("servers_up", "Servers that answer and hold all adapters", lambda: len(engine.serving))
    longest = characters_per_token(Tokenizer.from_file(os.fspath(path / TOKENIZER)))
    backend = SGLangBackend(engine, servers, shape.vocab_size, renderer, longest)
    return _Engines(backend, router, shape, found)


def _router(path: Path, base: Base, settings: RunSettings) -> Router:
    reader, policy = PromptReader(base.decoder), _policy(settings)
    return load_router(path, base.revision, reader, base.renderer, policy, configured=settings.routing.router)


def _forms(path: Path, renderer: Renderer) -> dict[bool, Renderer]:
    """The renderers of a hybrid model, with and without thinking; empty for a model without that choice."""
    if "enable_thinking" not in renderer.chat_template_kwargs:
        return {}
    return {thinking: load_renderer(path, thinking) for thinking in (False, True)}


def _policy(settings: RunSettings) -> SelectionPolicy:
    return make_policy(settings.routing)


if __name__ == "__main__":
    run(main, exclusive=False)  # it locks only its part of the work directory, RUN/gateway
