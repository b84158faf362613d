"""Adapters on a real server that reads another disk than the trainer's."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from real_server import CONFIG, STOP, RealServer, random_lora

from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS
from trace_jax.relay.client import deliver, withdraw
from trace_jax.relay.files import RelayError
from trace_jax.training.publish import Publisher

ROOT = Path(__file__).parents[2]
PROMPT = tuple(range(20, 50))


@contextmanager
def relay(directory: Path, server: RealServer) -> Iterator[str]:
    """URL of a relay in a process of its own."""
    words = [sys.executable, "-m", "launch.relay", f"--server={server.url}", f"--directory={directory}", "--port=0"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.match(r"relay on (http://\S+): ", line)
        assert found, line
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(300)


def listed(server: RealServer) -> dict[str, str]:
    """Adapters on the server, with their paths."""
    with urllib.request.urlopen(server.url + "/v1/models", timeout=10) as answer:
        return {card["id"]: card["root"] for card in json.load(answer)["data"] if card["parent"]}


def one(engine: SGLangEngine, adapter: str | None) -> Completion:
    return asyncio.run(engine.generate(PROMPT, Sampling(8, 0.0), adapter))


def test_versions_come_and_go_through_the_relay(engine: SGLangEngine, server: RealServer, tmp_path: Path) -> None:
    place, ours = tmp_path / "gpu-box", tmp_path / "trainer"
    with relay(place, server) as url:
        apart = SGLangEngine(
            [server.url], CONFIG, STOP, EngineSettings(slots=16, capacity=256, wait_seconds=60.0), relays=[url]
        )
        with Publisher(apart, model=CONFIG, base="base", directory=ours / "published", versions=2) as publisher:
            for step in range(3):
                publisher.publish(f"skill@{step}", random_lora(step, 8, TARGETS))
                seconds, size = publisher.metrics["time/sync_seconds"], publisher.metrics["sync/bytes"]
                print(f"sync of {size:.0f} bytes through the relay in {seconds:.2f} s")
            there = listed(server)
            assert sorted(name.rpartition("-")[0] for name in there) == ["skill@1", "skill@2"]
            assert {Path(path) for path in there.values()} == {place / name for name in there}
            through = one(apart, "skill@2")
            assert through.logprobs != one(apart, None).logprobs
            save_peft(random_lora(2, 8, TARGETS), CONFIG, ours / "same", "base")
            asyncio.run(engine.load_adapter("same", ours / "same"))
            direct = one(engine, "same")
            asyncio.run(engine.unload_adapter("same"))
            assert direct.token_ids == through.token_ids
            np.testing.assert_allclose(direct.logprobs, through.logprobs, atol=1e-5)
        assert not listed(server) and not [path for path in place.iterdir() if path.name != ".incoming"]


def test_a_relay_that_is_started_again_takes_up_what_is_loaded(server: RealServer, tmp_path: Path) -> None:
    place, adapter = tmp_path / "gpu-box", tmp_path / "adapter"
    save_peft(random_lora(3, 4, ("q_proj", "v_proj")), CONFIG, adapter, "base")
    for sent in (True, False):
        with relay(place, server) as url:
            assert (asyncio.run(deliver(url, "kept@1", adapter)) > 0) == sent
            assert listed(server) == {"kept@1": str(place / "kept@1")}
    with relay(place, server) as url:
        asyncio.run(withdraw(url, "kept@1"))
        asyncio.run(withdraw(url, "kept@1"))
    assert not listed(server) and not (place / "kept@1").exists()


def test_what_the_server_refuses_is_said_in_its_words(server: RealServer, tmp_path: Path) -> None:
    save_peft(random_lora(3, 32, ("q_proj", "v_proj")), CONFIG, tmp_path / "wide", "base")
    with relay(tmp_path / "gpu-box", server) as url:
        with pytest.raises(RelayError, match=r"refuses it: .*rank 32.*--max-lora-rank"):
            asyncio.run(deliver(url, "wide@1", tmp_path / "wide"))
    assert not listed(server) and not (tmp_path / "gpu-box" / "wide@1").exists()
