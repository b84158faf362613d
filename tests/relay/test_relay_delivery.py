"""The SGLang engine's way through a relay: what goes wrong is a server that failed, or one that refused."""

import asyncio
from pathlib import Path

import pytest
from relay_disks import contents

from trace_jax.engines.sglang.adapter_files import AdapterFiles
from trace_jax.engines.sglang.relay_delivery import RelayDelivery
from trace_jax.engines.sglang.server import Refused, ServerFailed
from trace_jax.errors import UserError
from trace_jax.session import relay_url


def test_it_loads_unloads_and_tells_refusals_from_failures(relay, adapter: Path, monkeypatch) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 2)
    setup = relay()
    delivery, files = RelayDelivery(setup.url), AdapterFiles("a@1-0f", adapter, 1, 4, ("q_proj", "v_proj"), 1.0)
    asyncio.run(delivery.load(files))
    assert contents(setup.directory / "a@1-0f") == contents(adapter) and "a@1-0f" in setup.sglang.loaded
    asyncio.run(delivery.unload("a@1-0f"))
    assert not (setup.directory / "a@1-0f").exists() and not setup.sglang.loaded
    setup.sglang.refuse = "no"
    with pytest.raises(Refused, match="refuses it: no"):
        asyncio.run(delivery.load(files))
    setup.sglang.status = 500
    with pytest.raises(ServerFailed, match="load_lora_adapter answers 500"):
        asyncio.run(delivery.load(files))
    with pytest.raises(ServerFailed, match="start launch.relay on the server's machine"):
        asyncio.run(RelayDelivery("http://127.0.0.1:1").load(files))


def test_a_server_behind_it_that_does_not_answer_in_time_has_failed(relay, adapter: Path) -> None:
    setup = relay()
    setup.sglang.busy = 1.0
    delivery, files = RelayDelivery(setup.url, 0.3), AdapterFiles("a@1-0f", adapter, 1, 4, ("q_proj", "v_proj"), 1.0)
    for act in (delivery.load(files), delivery.unload("a@1-0f")):
        with pytest.raises(ServerFailed, match="no answer in 0.3 s"):
            asyncio.run(act)


def test_a_relay_is_found_by_its_servers_port() -> None:
    assert relay_url("http://gpu-box:30001", 1000) == "http://gpu-box:31001"
    assert relay_url("http://[fd00::1]:30001/", 1) == "http://[fd00::1]:30002"
    with pytest.raises(UserError, match="https://gpu-box names no port"):
        relay_url("https://gpu-box", 1000)
