"""One server for the whole run; tests that kill servers start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_server import RealServer, new_engine, random_decoder, running, sglang_server, write_model
from tokenizers import Tokenizer

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.models.decoder import Decoder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.sglang)


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    return random_decoder(7)


@pytest.fixture(scope="session")
def model(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(decoder, tmp_path_factory.mktemp("sglang") / "model")


@pytest.fixture(scope="session")
def server(model: Path) -> Iterator[RealServer]:
    """The server that all tests share. Nobody kills it."""
    with running(sglang_server(model, model.parent / "server.log")) as server:
        yield server


@pytest.fixture(scope="session")
def mortal(model: Path, server: RealServer) -> Iterator[RealServer]:
    """A second one, started when the first is up. A test that kills it starts it again."""
    with running(sglang_server(model, model.parent / "mortal.log")) as mortal:
        yield mortal


@pytest.fixture(scope="session")
def renderer(model: Path) -> TinyRenderer:
    return TinyRenderer(Tokenizer.from_file(str(model / "tokenizer.json")))


@pytest.fixture
def engine(server: RealServer) -> SGLangEngine:
    return new_engine(server)
