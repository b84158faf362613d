"""A server's adapters are brought in step with those that are wanted, whatever was there before."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from trace_jax.engines.sglang import replica as replica_module
from trace_jax.engines.sglang.adapter_files import AdapterFiles
from trace_jax.engines.sglang.probe import Probe
from trace_jax.engines.sglang.replica import Replica
from trace_jax.engines.sglang.server import ServerInfo
from trace_jax.errors import EngineError


class Server:
    """A stand-in for ``SGLangServer`` and the way to it; adapters lie where a relay has placed them."""

    url = "http://gpu-box"

    def __init__(self, *names: str) -> None:
        self.loaded = {name: f"/var/adapters/{name}" for name in names}
        self.changes: list[str] = []
        self.deaf: set[str] = set()  # names that it takes, and computes what the base computes
        self.started = ServerInfo("tiny", 4096, True, 16, None)

    async def ready(self) -> None: ...

    async def info(self) -> ServerInfo:
        return self.started

    async def adapters(self) -> dict[str, str]:
        return dict(self.loaded)

    async def prompt_logprobs(self, tokens: list[int], adapters: list[str | None]) -> list[np.ndarray]:
        deaf = [name is None or name.startswith(tuple(self.deaf)) for name in adapters]
        return [np.full(len(tokens) - 1, -2.0 if silent else -3.0) for silent in deaf]

    async def load(self, files: AdapterFiles) -> None:
        self.loaded[files.name] = f"/var/adapters/{files.name}"
        self.changes.append(f"+{files.name}")

    async def unload(self, name: str) -> None:
        del self.loaded[name]
        self.changes.append(f"-{name}")


def files(name: str, rank: int = 4) -> AdapterFiles:
    return AdapterFiles(name, Path("/runs/1/published") / name, 100, rank, ("q_proj", "v_proj"), 1.0)


@pytest.fixture(autouse=True)
def amplified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files there is nothing to amplify."""

    @contextmanager
    def copy(files: AdapterFiles) -> Iterator[AdapterFiles]:
        yield dataclasses.replace(files, name=f"{files.name}-copy")

    monkeypatch.setattr(replica_module, "amplified", copy)


def replica(server: Server, *wanted: AdapterFiles) -> Replica:
    return Replica(server, server, {adapter.name: adapter for adapter in wanted}, Probe(320, 128), 128)  # type: ignore[arg-type]


def test_versions_that_a_killed_run_left_behind_a_relay_go_and_nothing_else_does() -> None:
    server = Server("skill@6-aaaa1111", "skill@7-bbbb2222", "other@7-cccc3333", "merged@ab-dddd4444", "skill-eeee5555")
    asyncio.run(replica(server, files("skill@7-ffff6666")).update())
    assert sorted(server.changes) == ["+skill@7-ffff6666", "-skill@6-aaaa1111", "-skill@7-bbbb2222"]
    assert server.changes[-1][0] == "+"  # there may have been no room before


def test_one_of_the_same_name_is_believed_when_the_probe_shows_it_and_else_loaded_anew() -> None:
    """Unloading waits for all requests: a server must not stand still for its longest stream."""
    server = Server("skill@7-ffff6666")
    box = replica(server, files("skill@7-ffff6666"))
    for _ in range(2):
        asyncio.run(box.update())
        box.invalidate()
    assert not server.changes
    server.deaf = {"skill@7-ffff6666"}
    with pytest.raises(EngineError, match="computes as if it had not"):
        asyncio.run(box.update())
    assert "-skill@7-ffff6666" in server.changes and not server.loaded
    server.deaf = set()
    asyncio.run(box.update())
    assert server.changes[-1] == "+skill@7-ffff6666"


def test_what_a_server_was_not_started_for_is_not_tried() -> None:
    server = Server()
    with pytest.raises(EngineError, match="up to rank 16, skill@1-aa has 32: start it with --max-lora-rank=32"):
        asyncio.run(replica(server, files("skill@1-aa", rank=32)).update())
    server.started = ServerInfo("tiny", 4096, True, 16, ("q_proj",))
    with pytest.raises(EngineError, match="takes no adapters on v_proj"):
        asyncio.run(replica(server, files("skill@1-aa")).update())
    server.started = ServerInfo("tiny", 64, True, 16, None)
    with pytest.raises(EngineError, match="takes 64 tokens a request, engine.capacity is 128"):
        asyncio.run(replica(server).update())
    assert not server.changes
