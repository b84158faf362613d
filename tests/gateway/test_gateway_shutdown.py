"""SIGTERM ends a server in time, also if a thread is at work that nothing can cancel, or nobody reads the log."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, logging, sys, time
import uvicorn
from trace_jax.gateway.connections import guarded, listen
from trace_jax.gateway.shutdown import DrainingServer
from trace_jax.parallel.termination import Termination

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await WORK[sys.argv[1]]()
    await send({"type": "http.response.body", "body": b"done"})

def log_on():
    while True:
        logging.warning("x" * 1000)

async def never():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

WORK = {
    "short": lambda: asyncio.sleep(1.0),
    "long": lambda: asyncio.sleep(600),
    "thread": lambda: asyncio.to_thread(time.sleep, 600),
    "stubborn": never,
    "log": lambda: asyncio.to_thread(log_on),
}

async def main():
    with listen("127.0.0.1", 0) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(answer, http=guarded(8), lifespan="off", log_config=None)
        with Termination():
            await DrainingServer(config, int(sys.argv[2])).serve(sockets=[listener])

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("work", "seconds", "whole"),
    [("short", 60, True), ("long", 2, False), ("thread", 2, False), ("stubborn", 2, False), ("log", 2, False)],
)
def test_sigterm_leaves_time_to_end_and_no_more(work, seconds, whole):
    command = [sys.executable, "-c", PROGRAM, work, str(seconds)]
    ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE if work == "log" else None}
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, **ends)
    try:
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while b"begun" not in received:
                received += client.recv(4096)
            process.send_signal(signal.SIGTERM)
            process.wait(40)
            try:
                while part := client.recv(4096):
                    received += part
            except ConnectionResetError:
                pass
        assert (b"done" in received) == whole
        assert process.returncode == 0
    finally:
        process.kill()
