"""Adapters from one disk to another over loopback: whole, once, loaded; and nothing of what goes wrong on the way."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import fsspec
import pytest
from cutting_proxy import CuttingProxy
from fake_sglang import Running
from fsspec.implementations.memory import MemoryFileSystem
from relay_disks import RelaySetup, contents, write_adapter
from safetensors.numpy import load_file, save_file

from trace_jax.errors import UserError
from trace_jax.relay import store as store_module
from trace_jax.relay.app import make_app
from trace_jax.relay.client import deliver, withdraw
from trace_jax.relay.files import HEADER, KEY, Checksum, Checksums, RelayError, checksums
from trace_jax.relay.server import Server
from trace_jax.relay.store import Store

Start = Callable[..., RelaySetup]


def ask(method: str, url: str, **arguments: object) -> tuple[int, dict]:
    async def request() -> tuple[int, dict]:
        async with aiohttp.ClientSession() as session, session.request(method, url, **arguments) as answer:
            return answer.status, (await answer.json()) if answer.status != 204 else {}

    return asyncio.run(request())


def upload_half(url: str, name: str, directory: Path) -> socket.socket:
    """A connection that has sent half an adapter."""
    announced = checksums(directory)
    body = b"".join(contents(directory).values())
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"PUT /adapters/{name} HTTP/1.1\r\nHost: x\r\n{HEADER}: {announced.model_dump_json()}\r\n"
    connection.sendall(f"{head}Content-Length: {announced.size}\r\n\r\n".encode() + body[: len(body) // 2])
    return connection


def wait_until(true: Callable[[], object], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_adapter_arrives_whole_is_loaded_and_is_taken_away(relay: Start, adapter: Path) -> None:
    setup = relay()
    size = sum(map(len, contents(adapter).values()))
    assert asyncio.run(deliver(setup.url, "refuse@12", adapter)) == size
    placed = setup.directory / "refuse@12"
    assert contents(placed) == contents(adapter) and setup.sglang.loaded == {"refuse@12": str(placed)}
    status, listed = ask("GET", f"{setup.url}/adapters")
    assert status == 200 and listed["adapters"] == {"refuse@12": checksums(adapter).model_dump()}
    asyncio.run(withdraw(setup.url, "refuse@12"))
    assert not placed.exists() and setup.sglang.loaded == {} and not setup.left_over()
    assert setup.sglang.files_at_unload == [True]  # a server may look at them until it has let go
    asyncio.run(withdraw(setup.url, "refuse@12"))  # again: nothing to do


def test_the_same_again_sends_nothing_and_other_content_is_refused(relay: Start, adapter: Path, tmp_path: Path) -> None:
    setup = relay()
    asyncio.run(deliver(setup.url, "a@1", adapter))
    before = contents(setup.directory / "a@1")
    assert asyncio.run(deliver(setup.url, "a@1", adapter)) == 0
    setup.sglang.loaded.clear()  # the server was started anew
    assert asyncio.run(deliver(setup.url, "a@1", adapter)) == 0 and "a@1" in setup.sglang.loaded
    with pytest.raises(RelayError, match="'a@1' is here with other content: names are immutable") as refused:
        asyncio.run(deliver(setup.url, "a@1", write_adapter(tmp_path / "other")))
    assert refused.value.status == 409 and contents(setup.directory / "a@1") == before
    body = b"".join(contents(tmp_path / "other").values())
    header = {HEADER: checksums(tmp_path / "other").model_dump_json()}
    assert ask("PUT", f"{setup.url}/adapters/a@1", data=body, headers=header)[0] == 409


def test_several_at_once_of_one_name_are_placed_once(relay: Start, adapter: Path) -> None:
    setup = relay()

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*(deliver(setup.url, "a@1", adapter) for _ in range(4)))

    assert max(asyncio.run(all_at_once())) > 0
    assert contents(setup.directory / "a@1") == contents(adapter) and not setup.left_over()


def test_cut_in_mid_transfer_nothing_is_placed(relay: Start, adapter: Path) -> None:
    setup = relay()
    connection = upload_half(setup.url, "a@1", adapter)
    wait_until(setup.left_over)
    connection.close()
    wait_until(lambda: not setup.left_over())
    assert not (setup.directory / "a@1").exists() and setup.sglang.loaded == {}
    asyncio.run(deliver(setup.url, "a@1", adapter))
    assert contents(setup.directory / "a@1") == contents(adapter)


@pytest.mark.parametrize("damage,times", [(False, 2), (True, 1)])
def test_cut_or_damaged_on_the_way_it_is_sent_again(relay: Start, adapter: Path, damage: bool, times: int) -> None:
    setup = relay()
    with CuttingProxy(setup.port, after=3_000_000, times=times, damage=damage) as proxy:
        assert asyncio.run(deliver(proxy.url, "a@1", adapter)) > 0
        assert proxy.faults == times
    assert contents(setup.directory / "a@1") == contents(adapter) and not setup.left_over()
    assert list(setup.sglang.loaded) == ["a@1"]


def test_a_sender_that_stalls_is_let_go(relay: Start, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "STALL_SECONDS", 0.2)
    setup = relay()
    with upload_half(setup.url, "a@1", adapter) as connection:
        connection.settimeout(100)
        assert b" 408 " in connection.recv(1 << 16).splitlines()[0]
    assert not setup.left_over() and not (setup.directory / "a@1").exists()


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda files: files | {"adapter_config.json": Checksum(size=1, sha256="0" * 64)}, "checksum"),
        (lambda files: files | {"adapter_model.safetensors": Checksum(size=9, sha256="0" * 64)}, "checksum"),
    ],
)
def test_a_wrong_checksum_is_refused(relay: Start, adapter: Path, change: Callable, words: str) -> None:
    setup = relay()
    announced = Checksums(files=change(checksums(adapter).files))
    body = b"".join(contents(adapter).values())
    status, answer = ask("PUT", f"{setup.url}/adapters/a@1", data=body, headers={HEADER: announced.model_dump_json()})
    assert status == 400 and words in answer["error"] and not (setup.directory / "a@1").exists()


def test_too_few_and_too_many_bytes_are_refused(relay: Start, adapter: Path) -> None:
    setup, header = relay(), {HEADER: checksums(adapter).model_dump_json()}
    body = b"".join(contents(adapter).values())
    for sent, words in ((body[:-1], "ended 1 bytes short"), (body + b"!", "more than the announced")):
        status, answer = ask("PUT", f"{setup.url}/adapters/a@1", data=sent, headers=header)
        assert status == 400 and words in answer["error"]
    assert not setup.left_over() and not (setup.directory / "a@1").exists()


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2Fx", "%2Fetc", ".hidden", "a%00b", "a:b", "a" * 201, "%C3%A4"])
def test_names_that_lead_elsewhere_are_refused(relay: Start, adapter: Path, name: str) -> None:
    setup = relay()
    before = sorted(setup.directory.parent.rglob("*"))
    header, body = {HEADER: checksums(adapter).model_dump_json()}, b"".join(contents(adapter).values())
    host, port = setup.url.removeprefix("http://").split(":")
    for method in ("PUT", "DELETE"):  # as it stands on the wire, where clients would have tidied it up
        with socket.create_connection((host, int(port))) as connection:
            head = f"{method} /adapters/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            lines = f"{head}{HEADER}: {header[HEADER]}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(lines.encode())
            connection.settimeout(100)
            assert connection.recv(1 << 16).split()[1] in (b"404", b"405", b"422")
    assert sorted(setup.directory.parent.rglob("*")) == before
    with pytest.raises(RelayError, match="adapter name"):
        asyncio.run(deliver(setup.url, f"../{name}", adapter))


def test_too_large_an_adapter_is_refused_before_it_is_sent(relay: Start, adapter: Path) -> None:
    setup = relay(max_bytes=1_000_000)
    with pytest.raises(RelayError, match="limit 1000000: see --max_gib") as refused:
        asyncio.run(deliver(setup.url, "a@1", adapter))
    assert refused.value.status == 413
    status, answer = ask("POST", f"{setup.url}/adapters/a@1", data=b" " * 100_000)
    assert status == 413 and "a POST of more than" in answer["error"]


def test_without_the_key_nothing_is_done(relay: Start, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = relay(key="sesame-é")
    assert ask("GET", f"{setup.url}/health")[0] == 200
    for key in (None, "sesam"):
        monkeypatch.setenv(KEY, key) if key else monkeypatch.delenv(KEY, raising=False)
        with pytest.raises(RelayError, match="wrong or no key") as refused:
            asyncio.run(deliver(setup.url, "a@1", adapter))
        assert refused.value.status == 401
    assert [ask(method, f"{setup.url}/adapters{name}")[0] for method, name in (("GET", ""), ("DELETE", "/a"))] == [
        401,
        401,
    ]
    monkeypatch.setenv(KEY, "sesame-é")
    asyncio.run(deliver(setup.url, "a@1", adapter))
    assert "a@1" in setup.sglang.loaded


@pytest.mark.parametrize(
    ("header", "status", "words"),
    [
        ("sesame", 401, "the key came without its scheme: send Authorization: Bearer KEY"),
        ("Basic sesame", 401, "the key came without its scheme"),
        ("Bearer", 401, "wrong or no key"),
        ("Bearer ", 401, "wrong or no key"),
        ("Bearer sesam", 401, "wrong or no key"),
        ("Bearer sesame", 200, ""),
        ("bearer  sesame", 200, ""),
    ],
)
def test_a_key_without_its_scheme_is_answered_in_words(relay: Start, header: str, status: int, words: str) -> None:
    setup = relay(key="sesame")
    found, body = ask("GET", f"{setup.url}/adapters", headers={"Authorization": header})
    assert found == status and words in body.get("error", "")


@pytest.mark.parametrize("key", ["sesame\n", "ses\rame", " sesame"])
def test_a_key_that_cannot_be_sent_is_refused(adapter: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UserError, match="TRACE_RELAY_KEY begins or ends with a blank, or has a line break in it"):
        asyncio.run(deliver("http://127.0.0.1:1", "a@1", adapter))


def test_it_is_fetched_from_where_it_may_be_fetched(relay: Start, adapter: Path, tmp_path: Path) -> None:
    inside, outside = f"file://{adapter}", f"file://{write_adapter(tmp_path / 'trainer-secrets')}"
    setup = relay(sources=(f"file://{tmp_path}/trainer",))
    assert asyncio.run(deliver(setup.url, "a@1", inside)) == 0
    assert contents(setup.directory / "a@1") == contents(adapter) and "a@1" in setup.sglang.loaded
    assert asyncio.run(deliver(setup.url, "a@1", inside)) == 0
    dotted = f"file://{tmp_path}/trainer/../trainer-secrets"
    for url in (outside, dotted, f"simplecache::{inside}", "http://169.254.169.254/x"):
        with pytest.raises(
            RelayError, match="may not be fetched: (start the relay with --sources|name the directory itself)"
        ) as refused:
            asyncio.run(deliver(setup.url, "b@1", url))
        assert refused.value.status == 403
    with pytest.raises(RelayError, match=r"nowhere: cannot be fetched .*FileNotFoundError"):
        asyncio.run(deliver(setup.url, "b@1", f"file://{tmp_path}/trainer/nowhere"))
    other = write_adapter(tmp_path / "trainer" / "other")
    with pytest.raises(RelayError, match="other content"):
        asyncio.run(deliver(setup.url, "a@1", f"file://{other}"))
    assert not setup.left_over() and not (setup.directory / "b@1").exists()


class Unreachable(MemoryFileSystem):
    """An object store whose driver fails in its own way, as botocore does, before there is an answer."""

    def info(self, path: str, **arguments: object) -> dict[str, object]:
        raise RuntimeError("Unable to locate credentials")


def test_it_is_fetched_from_an_object_store(
    relay: Start, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 2)
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    runs = f"memory://{tmp_path.name}/runs"  # the store is the process's
    setup = relay(max_bytes=10_000_000, sources=(runs, "unreachable://runs"))
    with pytest.raises(RelayError, match="FileNotFoundError"):
        asyncio.run(deliver(setup.url, "a@1", f"{runs}/a"))
    store = fsspec.filesystem("memory")
    store.put(f"{adapter}/", f"{runs}/a", recursive=True)
    assert asyncio.run(deliver(setup.url, "a@1", f"{runs}/a")) == 0
    placed = setup.directory / "a@1"
    assert contents(placed) == contents(adapter) and setup.sglang.loaded == {"a@1": str(placed)}

    store.put(f"{write_adapter(tmp_path / 'other')}/", f"{runs}/a", recursive=True)
    with pytest.raises(RelayError, match="other content"):
        asyncio.run(deliver(setup.url, "a@1", f"{runs}/a"))
    store.pipe(f"{runs}/a/adapter_model.safetensors", bytes(10_000_000))
    with pytest.raises(RelayError, match="limit 10000000: see --max_gib"):
        asyncio.run(deliver(setup.url, "b@1", f"{runs}/a"))
    with pytest.raises(RelayError, match=r"cannot be fetched .*Unable to locate credentials.*: see if") as failed:
        asyncio.run(deliver(setup.url, "b@1", "unreachable://runs/a"))
    assert failed.value.status == 502
    assert contents(placed) == contents(adapter) and list(setup.sglang.loaded) == ["a@1"] and not setup.left_over()


def test_what_the_server_refuses_does_not_stay(relay: Start, adapter: Path) -> None:
    setup = relay()
    setup.sglang.refuse = "rank 4 is incompatible with\nthe memory pool"
    with pytest.raises(RelayError, match="refuses it: rank 4 is incompatible with the memory pool") as refused:
        asyncio.run(deliver(setup.url, "a@1", adapter))
    assert refused.value.status == 422 and not (setup.directory / "a@1").exists()
    setup.sglang.refuse = ""
    assert asyncio.run(deliver(setup.url, "a@1", adapter)) > 0


def test_a_server_in_trouble_is_asked_again_and_nothing_is_sent_twice(relay: Start, adapter: Path) -> None:
    setup = relay()
    setup.sglang.status = 503

    async def recover() -> int:
        delivering = asyncio.ensure_future(deliver(setup.url, "a@1", adapter))
        while not setup.sglang.asked:
            await asyncio.sleep(0.01)
        setup.sglang.loaded.clear()
        setup.sglang.status = 200
        return await delivering

    assert asyncio.run(recover()) == sum(map(len, contents(adapter).values()))
    assert setup.sglang.asked > 1 and "a@1" in setup.sglang.loaded


def test_a_relay_that_is_not_there_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = "http://{}:{}".format(*free.getsockname())
    with pytest.raises(RelayError, match="gave up after attempt 2 .*: start launch.relay on the server's machine"):
        asyncio.run(deliver(url, "a@1", adapter))


def test_a_relay_that_takes_connections_and_says_nothing_is_given_up(adapter: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 3)
    monkeypatch.setattr("trace_jax.relay.client.HEALTH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = "http://{}:{}".format(*hung.getsockname())
        for act in (deliver(url, "a@1", adapter), withdraw(url, "a@1")):
            caplog.clear()
            with pytest.raises(RelayError, match=r"attempt 3 \(.*/health: no answer in 0.2 s\): start"):
                asyncio.run(act)
            told = [record.getMessage() for record in caplog.records if "no answer in 0.2 s" in record.getMessage()]
            assert [text.partition(" failed")[0] for text in told] == ["attempt 1 of 3", "attempt 2 of 3"]


def test_a_server_that_takes_its_time_is_waited_for_but_not_for_ever(relay: Start, adapter: Path) -> None:
    setup = relay()
    setup.sglang.busy = 0.7
    load, unload = partial(deliver, setup.url, "a@1", adapter), partial(withdraw, setup.url, "a@1")
    for act, there in ((load, True), (unload, False)):
        with pytest.raises(RelayError, match=r"attempt 1 \(.*/adapters/a@1: no answer in 0.3 s\)"):
            asyncio.run(act(0.3))
        asyncio.run(act(100.0))
        assert ("a@1" in setup.sglang.loaded) == (setup.directory / "a@1").exists() == there


def test_an_upload_may_take_as_long_as_it_goes_on(relay: Start, tmp_path: Path) -> None:
    setup, adapter = relay(), write_adapter(tmp_path / "large", width=1 << 15)
    with CuttingProxy(setup.port, after=0, times=0, pause=0.03) as proxy:
        started = time.monotonic()
        sent = asyncio.run(deliver(proxy.url, "a@1", adapter, 2.0))
        assert time.monotonic() - started > 2.5 and sent == sum(map(len, contents(adapter).values()))
    assert contents(setup.directory / "a@1") == contents(adapter)


def test_an_adapter_that_would_kill_the_server_is_refused_before_it_is_asked(relay: Start, adapter: Path) -> None:
    """Uploaded or fetched: k and v without q."""
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ["k_proj", "v_proj"]}))
    save_file({name: value for name, value in load_file(weights).items() if "q_proj" not in name}, weights)
    setup = relay(sources=(f"file://{adapter.parent}",))
    for source in (adapter, f"file://{adapter}"):
        with pytest.raises(RelayError, match="adapts k_proj, v_proj: SGLang takes q_proj and v_proj") as refused:
            asyncio.run(deliver(setup.url, "a@1", source))
        assert refused.value.status == 422
    assert setup.sglang.asked == 0 and not (setup.directory / "a@1").exists() and not setup.left_over()


def test_a_directory_has_one_relay(relay: Start) -> None:
    setup = relay()
    with pytest.raises(UserError, match="is another relay's: give each relay a directory of its own"):
        Store(setup.directory, 1)


def test_after_a_new_start_everything_is_still_there(sglang, adapter: Path, tmp_path: Path) -> None:
    fake, url = sglang
    for sent in (True, False):
        with Running(make_app(Store(tmp_path / "gpu-box", 1 << 30), Server(url))) as running:
            assert (asyncio.run(deliver(running.url, "a@1", adapter)) > 0) == sent
    assert list(fake.loaded) == ["a@1"]


def test_a_server_that_asks_for_its_key_gets_it(sglang, adapter: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trace_jax.relay.client.ATTEMPTS", 1)
    fake, url = sglang
    fake.api_key = "theirs"
    for key in (None, "another"):
        with Running(make_app(Store(tmp_path / "gpu-box", 1 << 30), Server(url, key))) as running:
            with pytest.raises(RelayError, match="asks for its --api-key: set SGLANG_API_KEY"):
                asyncio.run(deliver(running.url, "a@1", adapter))
    with Running(make_app(Store(tmp_path / "gpu-box", 1 << 30), Server(url, "theirs"))) as running:
        asyncio.run(deliver(running.url, "a@1", adapter))
    assert list(fake.loaded) == ["a@1"]


def test_what_is_no_announcement_is_refused(relay: Start, adapter: Path) -> None:
    setup = relay()
    escaping = checksums(adapter).model_dump()
    escaping["files"]["../../x"] = escaping["files"].pop("adapter_config.json")
    for text in ("", "[]", '{"path": 3}', json.dumps(escaping), "{" * 3000):
        status, answer = ask("POST", f"{setup.url}/adapters/a@1", data=text)
        assert status == 422 and ("announces no adapter" in answer["error"] or "an adapter is" in answer["error"])
