"""The relay's disk: it is bounded, what is not loaded makes room, and what is damaged is sent again."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from relay_disks import RelaySetup, contents, write_adapter
from test_relay import ask

from trace_jax.relay import store as store_module
from trace_jax.relay.client import deliver, withdraw
from trace_jax.relay.files import CHECKSUMS, RelayError, checksums

Start = Callable[..., RelaySetup]
SIZE = 60_000  # bytes of one of these adapters, checksums included, are a few less


def bring(setup: RelaySetup, tmp_path: Path, name: str) -> int:
    adapter = write_adapter(tmp_path / name, width=256)
    return asyncio.run(deliver(setup.url, name, adapter))


def names(setup: RelaySetup) -> set[str]:
    return {path.name for path in setup.directory.iterdir() if path.name != ".incoming"}


def test_adapters_that_are_not_loaded_make_room_the_longest_unused_first(
    relay: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 1)
    setup = relay(max_disk_bytes=3 * SIZE)
    for name in ("a@1", "b@1", "c@1"):
        assert 0.8 * SIZE < bring(setup, tmp_path, name) < SIZE
    with pytest.raises(RelayError, match="no room for .* in use; withdraw adapters, or see --max_disk_gib") as refused:
        bring(setup, tmp_path, "d@1")
    assert refused.value.status == 507 and not setup.left_over() and names(setup) == {"a@1", "b@1", "c@1"}

    for name in ("a@1", "b@1"):
        del setup.sglang.loaded[name]  # as by a new start of the server
    os.utime(setup.directory / "b@1", (1, 1))
    bring(setup, tmp_path, "d@1")
    assert names(setup) == {"a@1", "c@1", "d@1"} and "d@1" in setup.sglang.loaded
    bring(setup, tmp_path, "e@1")
    assert names(setup) == {"c@1", "d@1", "e@1"}
    asyncio.run(withdraw(setup.url, "c@1"))
    bring(setup, tmp_path, "f@1")
    assert names(setup) == {"d@1", "e@1", "f@1"} == set(setup.sglang.loaded)


def test_one_that_is_asked_for_again_is_not_the_next_to_go(relay: Start, tmp_path: Path) -> None:
    setup = relay(max_disk_bytes=2 * SIZE)
    for name in ("a@1", "b@1"):
        bring(setup, tmp_path, name)
        os.utime(setup.directory / name, (1, 1))
    setup.sglang.loaded.clear()
    assert asyncio.run(deliver(setup.url, "a@1", tmp_path / "a@1")) == 0
    setup.sglang.loaded.clear()
    bring(setup, tmp_path, "c@1")
    assert names(setup) == {"a@1", "c@1"}


def test_an_object_store_fills_no_more_than_the_bound(
    relay: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 1)
    setup = relay(max_disk_bytes=SIZE, sources=(f"file://{tmp_path}",))
    bring(setup, tmp_path, "a@1")
    write_adapter(tmp_path / "b@1", width=256)
    with pytest.raises(RelayError, match="no room for"):
        asyncio.run(deliver(setup.url, "b@1", f"file://{tmp_path}/b@1"))
    setup.sglang.loaded.clear()
    asyncio.run(deliver(setup.url, "b@1", f"file://{tmp_path}/b@1"))
    assert names(setup) == {"b@1"}


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_one_on_its_way_counts_and_is_not_removed_before_it_is_loaded(
    relay: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 1)
    setup = relay(max_disk_bytes=SIZE)
    setup.sglang.busy_listing = seconds  # the first one is placed while the second one looks for room

    async def both() -> list[int | BaseException]:
        sent = [deliver(setup.url, name, write_adapter(tmp_path / name, width=256)) for name in ("a@1", "b@1")]
        return await asyncio.gather(*sent, return_exceptions=True)

    failed = [result for result in asyncio.run(both()) if isinstance(result, RelayError)]
    assert len(failed) == 1 == len(names(setup)) and failed[0].status == 507
    assert names(setup) == set(setup.sglang.loaded)


def test_a_full_disk_is_told_in_words(relay: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 1)
    setup = relay()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "write_document", full)
    with pytest.raises(RelayError, match=r"adapter 'a@1': the disk of .*gpu-box is full: make room there") as refused:
        bring(setup, tmp_path, "a@1")
    assert refused.value.status == 507 and not setup.left_over()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_text("[" * 5000),
        lambda path: path.write_text("null"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_record_costs_one_adapter_until_it_is_sent_again(
    relay: Start, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    setup = relay()
    for name in ("a@1", "b@1"):
        bring(setup, tmp_path, name)
    damage(setup.directory / "a@1" / CHECKSUMS)
    status, listed = ask("GET", f"{setup.url}/adapters")
    assert status == 200 and set(listed["adapters"]) == {"b@1"}
    assert asyncio.run(deliver(setup.url, "b@1", tmp_path / "b@1")) == 0
    assert asyncio.run(deliver(setup.url, "a@1", tmp_path / "a@1")) > 0
    assert contents(setup.directory / "a@1") == contents(tmp_path / "a@1")
    assert set(ask("GET", f"{setup.url}/adapters")[1]["adapters"]) == {"a@1", "b@1"}


def test_a_damaged_record_does_not_stop_a_new_start(relay: Start, tmp_path: Path) -> None:
    (tmp_path / "gpu-box" / "a@1").mkdir(parents=True)
    (tmp_path / "gpu-box" / "a@1" / CHECKSUMS).write_text("{")
    setup = relay()
    assert ask("GET", f"{setup.url}/adapters") == (200, {"adapters": {}})
    bring(setup, tmp_path, "a@1")
    assert names(setup) == {"a@1"} == set(setup.sglang.loaded)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_flipped_bit_on_the_disk_is_noticed_by_the_next_relay(tmp_path: Path, file: str) -> None:
    store, adapter = store_module.Store(tmp_path / "gpu-box", 1 << 30), write_adapter(tmp_path / "adapter")

    async def body():
        for data in contents(adapter).values():
            yield data

    files = checksums(adapter)
    asyncio.run(store.receive("a@1", files, body()))
    assert store.holds("a@1", files)
    store.close()
    path = tmp_path / "gpu-box" / "a@1" / file
    damaged = bytearray(path.read_bytes())
    damaged[-2] ^= 1
    path.write_bytes(damaged)
    store = store_module.Store(tmp_path / "gpu-box", 1 << 30)
    assert not store.holds("a@1", files)
    asyncio.run(store.receive("a@1", files, body()))
    assert store.holds("a@1", files) and contents(tmp_path / "gpu-box" / "a@1") == contents(adapter)
    store.close()


def test_a_record_of_other_files_is_damage(relay: Start, tmp_path: Path) -> None:
    setup = relay()
    bring(setup, tmp_path, "a@1")
    record = setup.directory / "a@1" / CHECKSUMS
    data = json.loads(record.read_text())
    data["files"]["adapter_config.json"]["sha256"] = "0" * 64
    record.write_text(json.dumps(data))
    assert asyncio.run(deliver(setup.url, "a@1", tmp_path / "a@1")) > 0
