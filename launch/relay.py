"""Brings adapters to an SGLang server that shares no disk with the trainer.

    python -m launch.relay --server=http://127.0.0.1:30001 --directory=/var/adapters --host=10.0.0.5 --port=31001

The relay runs on the server's machine and has a local directory of its own. It receives adapters by HTTP, or fetches
them from object stores below ``--sources``. It checks each adapter and writes it completely or not at all. It loads,
unloads and removes adapters on the server (``trace_jax/relay/app.py`` lists the requests). It needs no JAX. In an image
with SGLang it runs from a checkout after

    pip install absl-py aiohttp etils[epath] fsspec lazy-loader ml_collections
    pip install numpy pydantic regex safetensors starlette uvicorn

All adapters together take at most ``--max_disk_gib``. If there is no room for another adapter, the relay removes
adapters that the server has not loaded, the least recently used first. If that is not enough, the adapter is refused.

Trainer and relay share a secret, the environment variable TRACE_RELAY_KEY on both sides. SGLANG_API_KEY is the server's
own --api-key, if it has one.
"""

import logging
import math
import os
import socket
from pathlib import Path

import uvicorn
from absl import app, flags

from trace_jax.program import fail, guarded, parse_flags
from trace_jax.relay.app import make_app
from trace_jax.relay.files import API_KEY, KEY, relay_key
from trace_jax.relay.server import Server
from trace_jax.relay.store import DISK_BYTES, Store

GIB = 1 << 30

SERVER = flags.DEFINE_string("server", None, "URL of the SGLang server on this machine")
DIRECTORY = flags.DEFINE_string("directory", None, "local directory for adapters; the server has to see it as well")
HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen on: never a public one")
PORT = flags.DEFINE_integer("port", 31001, "port to listen on; 0: any free one", lower_bound=0, upper_bound=65535)
SOURCES = flags.DEFINE_list("sources", [], "fsspec prefixes, gs://bucket/runs, that adapters may be fetched from")
MAX_GIB = flags.DEFINE_float("max_gib", 8.0, "largest adapter that is taken, in GiB", lower_bound=0.0)
MAX_DISK_GIB = flags.DEFINE_float(
    "max_disk_gib",
    DISK_BYTES / GIB,
    "disk that all adapters may take, in GiB; unloaded ones make room",
    lower_bound=0.0,
)

_SECONDS_TO_FINISH = 10  # that running transfers get after SIGINT or SIGTERM


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    assert SERVER.value and DIRECTORY.value
    key = relay_key()
    store = Store(Path(DIRECTORY.value), int(MAX_GIB.value * GIB), int(MAX_DISK_GIB.value * GIB))
    relay = make_app(store, Server(SERVER.value, os.environ.get(API_KEY)), SOURCES.value, key)
    listener = socket.create_server((HOST.value, PORT.value))
    host, port = listener.getsockname()[:2]
    if key is None and not host.startswith("127."):
        logging.warning("%s is not set: every client that reaches %s:%d may place adapters", KEY, host, port)
    print(f"relay on http://{host}:{port}: {store.directory} for {SERVER.value}", flush=True)
    config = uvicorn.Config(
        relay, access_log=False, log_config=None, timeout_graceful_shutdown=_SECONDS_TO_FINISH, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listener])


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest = parse_flags(arguments)
        for flag in (SERVER, DIRECTORY):
            if not flag.value:
                raise flags.Error(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
        for limit in (MAX_GIB, MAX_DISK_GIB):
            if not math.isfinite(limit.value):
                raise flags.Error(f"--{limit.name}={limit.value}: write a number of GiB")
        if not str(SERVER.value).startswith(("http://", "https://")):
            raise flags.Error(f"--server={SERVER.value} is not a URL: write http://HOST:PORT")
    except flags.Error as error:
        fail(str(error), 2)
    return rest


if __name__ == "__main__":
    app.run(lambda _: guarded(main), flags_parser=_parse)
