"""Adapters on a real server: loaded, verified, unloaded, refused."""

import asyncio
import dataclasses
import json
import logging
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from real_server import CONFIG, MAX_RANK, RealServer, new_engine, random_lora

from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.sglang.adapter_files import AdapterFiles, adapter_files
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.engines.sglang.probe import Probe
from trace_jax.engines.sglang.replica import Replica, SharedDirectory
from trace_jax.engines.sglang.server import SGLangServer
from trace_jax.errors import EngineError, UserError
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS, init_lora
from trace_jax.training.publish import Publisher

QV = ("q_proj", "v_proj")
PROMPT = tuple(range(20, 50))


def listed(server: RealServer) -> dict[str, str]:
    """Adapters on the server, with their paths."""
    with urllib.request.urlopen(server.url + "/v1/models", timeout=10) as answer:
        return {card["id"]: card["root"] for card in json.load(answer)["data"] if card["parent"]}


def post(server: RealServer, path: str, **body: object) -> None:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def one(engine: SGLangEngine, adapter: str | None) -> Completion:
    return asyncio.run(engine.generate(PROMPT, Sampling(8, 0.0), adapter))


def exported(directory: Path, lora=None) -> Path:
    save_peft(random_lora(5, 4, QV) if lora is None else lora, CONFIG, directory, "base")
    return directory


def change(directory: Path, **settings: object) -> Path:
    config = json.loads((directory / "adapter_config.json").read_text()) | settings
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def test_versions_come_and_go(engine: SGLangEngine, server: RealServer, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    before = one(engine, None)
    with Publisher(engine, model=CONFIG, base="base", directory=tmp_path / "published", versions=2) as publisher:
        for step in range(4):
            publisher.publish(f"skill@{step}", random_lora(step, 8, TARGETS))
            assert publisher.metrics["sync/bytes"] == sum(
                file.stat().st_size for file in (tmp_path / "published" / f"skill@{step}").iterdir()
            )
            print(
                f"sync of {publisher.metrics['sync/bytes']:.0f} bytes in {publisher.metrics['time/sync_seconds']:.2f} s"
            )
        assert sorted(name.rpartition("-")[0] for name in listed(server)) == ["skill@2", "skill@3"]
        assert sorted(path.name for path in (tmp_path / "published").iterdir()) == ["skill@2", "skill@3"]
        assert one(engine, "skill@3").logprobs != one(engine, "skill@2").logprobs
        with pytest.raises(EngineError, match="adapter 'skill@1' is not loaded; loaded are skill@2, skill@3"):
            one(engine, "skill@1")  # the server would have loaded it again, had it been asked
    assert not listed(server) and not (tmp_path / "published").exists()
    np.testing.assert_allclose(one(engine, None).logprobs, before.logprobs, atol=1e-5)
    assert "loaded and verified in" in caplog.text


def test_an_untrained_adapter_is_the_base(engine: SGLangEngine, tmp_path: Path) -> None:
    with Publisher(engine, model=CONFIG, base="base", directory=tmp_path / "published") as publisher:
        publisher.publish("skill@0", init_lora(CONFIG, 8, 8.0))
        np.testing.assert_allclose(one(engine, "skill@0").logprobs, one(engine, None).logprobs, atol=1e-5)


def test_a_name_is_never_given_twice(engine: SGLangEngine, tmp_path: Path) -> None:
    path = exported(tmp_path / "a")
    asyncio.run(engine.load_adapter("a", path))
    with pytest.raises(EngineError, match="adapter 'a' is loaded already: names are immutable"):
        asyncio.run(engine.load_adapter("a", path))
    asyncio.run(engine.unload_adapter("a"))
    with pytest.raises(EngineError, match="adapter 'a' is not loaded"):
        asyncio.run(engine.unload_adapter("a"))


def test_what_a_killed_run_left_is_replaced(engine: SGLangEngine, server: RealServer, tmp_path: Path) -> None:
    """The same name and contents, and another version of the same run: both on the server from before."""
    published = tmp_path / "published"
    path = exported(published / "skill@7")
    name = adapter_files("skill@7", path, CONFIG).name
    shutil.copytree(path, published / "skill@6")
    post(server, "/load_lora_adapter", lora_name=name, lora_path=str(path))
    post(server, "/load_lora_adapter", lora_name="skill@6-old", lora_path=str(published / "skill@6"))
    shutil.copytree(path, tmp_path / "foreign")
    post(server, "/load_lora_adapter", lora_name="foreign", lora_path=str(tmp_path / "foreign"))
    asyncio.run(engine.load_adapter("skill@7", path))
    assert set(listed(server)) == {name, "foreign"}
    assert one(engine, "skill@7").logprobs != one(engine, None).logprobs
    asyncio.run(engine.unload_adapter("skill@7"))
    post(server, "/unload_lora_adapter", lora_name="foreign")


def test_more_adapters_than_the_server_holds(engine: SGLangEngine, server: RealServer, tmp_path: Path) -> None:
    """It drops some and reads them again from their files: every one still computes as it did."""
    with Publisher(engine, model=CONFIG, base="base", directory=tmp_path / "published", versions=8) as publisher:
        first = {}
        for number in range(8):
            publisher.publish(f"many@{number}", random_lora(number, 4, QV))
            first[number] = one(engine, f"many@{number}")
        assert len(listed(server)) == 6
        for number, completion in first.items():
            again = one(engine, f"many@{number}")
            assert again.token_ids == completion.token_ids
            np.testing.assert_allclose(again.logprobs, completion.logprobs, atol=1e-5)


@pytest.mark.parametrize(
    "targets, settings, words",
    [
        (("k_proj", "v_proj"), {}, "adapts k_proj, v_proj: SGLang takes q_proj and v_proj together"),
        (("k_proj",), {}, "dies of k_proj or v_proj alone"),
        (("up_proj",), {}, "adapts up_proj without gate_proj, which SGLang ignores"),
        (QV, {"use_rslora": True}, "has use_rslora True, which is not supported"),
        (QV, {"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        (QV, {"target_modules": ".*[qv]_proj"}, "SGLang needs a list"),
        (QV, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_adapters_that_no_server_should_see(engine, server, tmp_path, targets, settings, words) -> None:
    path = change(exported(tmp_path / "bad", random_lora(1, 4, targets)), **settings)
    with pytest.raises(UserError, match=words):
        asyncio.run(engine.load_adapter("bad", path))
    assert not listed(server)
    with pytest.raises(EngineError, match="adapter 'bad' is not loaded; loaded are none"):
        one(engine, "bad")
    one(engine, None)  # the server lives


def test_a_rank_above_the_server_s(engine: SGLangEngine, server: RealServer, tmp_path: Path) -> None:
    path = exported(tmp_path / "wide", random_lora(1, MAX_RANK + 1, QV))
    with pytest.raises(EngineError, match="adapters up to rank 16, wide-.* has 17: start it with --max-lora-rank=17"):
        asyncio.run(engine.load_adapter("wide", path))
    assert not listed(server)
    one(engine, None)


def test_capacity_beyond_the_server_s(server: RealServer) -> None:
    engine = new_engine(server, capacity=8193)
    with pytest.raises(EngineError, match="takes 8192 tokens a request, engine.capacity is 8193"):
        one(engine, None)


class Silent(SharedDirectory):
    """A way to the server on which what the adapter says is lost."""

    def __init__(self, server: SGLangServer, directory: Path) -> None:
        super().__init__(server)
        self._directory = directory

    async def load(self, files: AdapterFiles) -> None:
        path = exported(self._directory / files.name, init_lora(CONFIG, files.rank, 4.0, files.targets))
        await super().load(dataclasses.replace(files, path=path))


@pytest.mark.parametrize("size", [0.15, 1e-5])
def test_an_adapter_that_is_ignored_is_caught(server: RealServer, tmp_path: Path, size: float) -> None:
    """However little it would have changed."""
    path = exported(tmp_path / "a", random_lora(5, 4, QV, size))
    files = adapter_files("a", path, CONFIG)
    real, wanted = SGLangServer(server.url, 60.0), {"a": files}
    probe = Probe(CONFIG.vocab_size, 256)
    deaf = Replica(real, Silent(real, tmp_path / "lost"), wanted, probe, 256)
    with pytest.raises(EngineError, match="took adapter a-.* and computes as if it had not"):
        asyncio.run(deaf.update())
    assert not listed(server)
    hearing = Replica(real, SharedDirectory(real), wanted, probe, 256)
    asyncio.run(hearing.update())
    assert set(listed(server)) == {files.name}
    wanted.clear()
    asyncio.run(hearing.update())
    assert not listed(server)
