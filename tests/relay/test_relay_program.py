"""The relay as its own process, killed in the middle of an upload, and how it is started."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_sglang import FakeSGLang, Running
from programs import run_program
from relay_disks import contents, write_adapter

from trace_jax.relay.client import deliver, withdraw
from trace_jax.relay.files import HEADER, checksums

ROOT = Path(__file__).parents[2]


def start(directory: Path, server: str, *flags: str) -> tuple[subprocess.Popen[str], str]:
    """A relay on a free port, and its URL."""
    words = [sys.executable, "-m", "launch.relay", f"--server={server}", f"--directory={directory}", "--port=0", *flags]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline() if process.stdout else ""
    found = re.match(r"relay on (http://\S+): ", line)
    assert found, process.communicate()
    return process, found.group(1)


def stop(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def test_killed_in_mid_upload_it_starts_again_without_what_was_half_there(tmp_path: Path) -> None:
    sglang, adapter, place = FakeSGLang(), write_adapter(tmp_path / "trainer", width=1 << 15), tmp_path / "gpu-box"
    with Running(sglang.app) as running:
        process, url = start(place, running.url)
        host, port = url.removeprefix("http://").split(":")
        announced, body = checksums(adapter), b"".join(contents(adapter).values())
        with socket.create_connection((host, int(port))) as connection:
            head = f"PUT /adapters/a@1 HTTP/1.1\r\nHost: x\r\n{HEADER}: {announced.model_dump_json()}\r\n"
            half = body[: int(np.random.default_rng().integers(1000, len(body)))]
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + half)
            end = time.monotonic() + 200
            while not any(path.is_file() for path in (place / ".incoming").rglob("*")):
                assert time.monotonic() < end
                time.sleep(0.01)
            stop(process, signal.SIGKILL)
        assert list((place / ".incoming").iterdir()) and not (place / "a@1").exists()

        process, url = start(place, running.url)
        assert not list((place / ".incoming").iterdir())
        asyncio.run(deliver(url, "a@1", adapter))
        assert contents(place / "a@1") == contents(adapter) and sglang.loaded == {"a@1": str(place / "a@1")}
        second = run_program("launch.relay", "--server=http://x", f"--directory={place}", "--port=0")
        assert second.returncode == 1 and "is another relay's" in second.stderr and second.stderr.count("\n") == 1
        status, errors = stop(process)
        assert status in (0, -signal.SIGTERM, 128 + signal.SIGTERM) and "Traceback" not in errors, errors


def test_a_delivery_outlives_a_relay_that_is_started_again(tmp_path: Path) -> None:
    """The sender keeps trying while nobody listens."""
    sglang, adapter, place = FakeSGLang(), write_adapter(tmp_path / "trainer"), tmp_path / "gpu-box"
    with Running(sglang.app) as running:
        process, url = start(place, running.url)
        stop(process)

        async def deliver_meanwhile() -> subprocess.Popen[str]:
            delivering = asyncio.ensure_future(deliver(url, "a@1", adapter))
            port = url.rpartition(":")[2]
            again, _ = await asyncio.to_thread(start, place, running.url, f"--port={port}")
            await delivering
            await withdraw(url, "a@1")
            return again

        process = asyncio.run(deliver_meanwhile())
        assert not (place / "a@1").exists() and sglang.loaded == {}
        stop(process)


def test_it_starts_where_there_is_no_jax() -> None:
    heavy = ("jax", "torch", "transformers")
    code = f"import launch.relay, trace_jax.relay.client, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("key", [pytest.param(None, marks=pytest.mark.slow), ""])
def test_a_relay_without_a_key_on_a_reachable_address_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("TRACE_RELAY_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("TRACE_RELAY_KEY", key)
    process, _ = start(tmp_path, "http://127.0.0.1:1", "--host=0.0.0.0")
    assert "TRACE_RELAY_KEY is not set" in stop(process)[1]


@pytest.mark.parametrize(
    "flags,words",
    [
        (("--directory=x",), "--server is missing"),
        (("--server=http://x",), "--directory is missing"),
        (("--server=127.0.0.1:30000", "--directory=x"), "is not a URL: write http://HOST:PORT"),
        (("--server=http://x", "--directory=x", "--port=99999"), "port"),
        (("--server=http://x", "--directory=x", "--max_disk_gib=inf"), "--max_disk_gib=inf: write a number of GiB"),
        (("--server=http://x", "--directory=x", "--max_gib=nan"), "--max_gib=nan: write a number of GiB"),
    ],
)
def test_a_wrong_command_line_is_one_line(flags: tuple[str, ...], words: str) -> None:
    done = run_program("launch.relay", *flags)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
