"""A relay between a trainer's disk and a server's, over loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_sglang import FakeSGLang, Running
from relay_disks import RelaySetup, write_adapter

from trace_jax.relay.app import make_app
from trace_jax.relay.server import Server
from trace_jax.relay.store import Store


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A fresh adapter on the trainer's disk: 6 MB, so that uploads take many pieces."""
    return write_adapter(tmp_path / "trainer" / "adapter", width=1 << 15)


@pytest.fixture
def sglang() -> Iterator[tuple[FakeSGLang, str]]:
    fake = FakeSGLang()
    with Running(fake.app) as running:
        yield fake, running.url


@pytest.fixture
def relay(sglang: tuple[FakeSGLang, str], tmp_path: Path) -> Iterator[Callable[..., RelaySetup]]:
    """``relay(max_bytes=…, sources=…, key=…, max_disk_bytes=…)``: started in this process."""
    fake, url = sglang
    started: list[Running] = []

    def start(
        max_bytes: int = 1 << 30,
        sources: tuple[str, ...] = (),
        key: str | None = None,
        max_disk_bytes: int = 1 << 30,
    ) -> RelaySetup:
        directory = tmp_path / "gpu-box"
        app = make_app(Store(directory, max_bytes, max_disk_bytes), Server(url), sources, key)
        started.append(Running(app).__enter__())
        return RelaySetup(started[-1].url, directory, fake)

    yield start
    for running in started:
        running.__exit__(None, None, None)
