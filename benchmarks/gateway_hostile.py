"""The cost of hostile clients for another client: its response times of ``/health``, idle and under their load.

    python -m benchmarks.gateway_hostile [--streams=200] [--half_open=300] [--body_mb=15] [--seconds=20]

The server behind the gateway answers at once and streams ten events a second. Gateway, server and hostile clients are
separate processes on this machine. First the gateway is idle. Then three loads run at the same time: clients read
streams; connections send half a head and then nothing; large bodies are sent one after the other. The bodies are a long
text, a list of empty lists, and a text in chunks of one byte.

The program prints one JSON object: milliseconds of ``/health`` (p50, p99, worst) idle and loaded, the number of
requests behind them, the statuses of the large bodies, the resident memory of the gateway before, during and after the
load in MiB, and the load average of the machine.
"""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from absl import app, flags

from benchmarks.gateway_stage import base_card, started

STREAMS = flags.DEFINE_integer("streams", 200, "streams that are read at a time")
HALF_OPEN = flags.DEFINE_integer("half_open", 300, "connections that send half a head")
BODY = flags.DEFINE_integer("body_mb", 15, "MB of each large body")
SECONDS = flags.DEFINE_float("seconds", 20.0, "seconds of each of the two measurements")

CHAT = "/v1/chat/completions"
PAUSE = 0.02  # seconds between two requests to /health


def request(body: bytes, chunked: bool) -> bytes:
    """A large body with its head."""
    coding = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{coding}\r\n\r\n".encode()
    return head + (b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n" if chunked else body)


def large_bodies(size: int) -> list[tuple[str, bytes]]:
    """Requests of about ``size`` bytes: two with a large body, and one with a chunked body of a sixth of the size."""
    begin = b'{"model":"routed","messages":[{"role":"user","content":'
    text = begin + b'"' + b"please cancel the order, " * (size // 25) + b'"}]}'
    lists = begin + b"[" + b"[]," * (size // 3) + b"0]}]}"
    return [
        ("text", request(text, False)),
        ("lists", request(lists, False)),
        ("chunks of one byte", request(text[: size // 6], True)),
    ]


async def stream(session: aiohttp.ClientSession, url: str, name: str, begun: asyncio.Semaphore) -> None:
    """Read streams, one after the other. The semaphore is released at the first event of each."""
    body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": f"{name} cancel"}]}
    while True:
        with suppress(aiohttp.ClientError):
            async with session.post(url + CHAT, json=body) as answer:
                async for _ in answer.content.iter_any():
                    begun.release()


async def half_open(url: str) -> None:
    """Connect, send half a head, wait until the gateway closes the connection, and begin again."""
    place = urlsplit(url)
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ")
            await reader.read()
            writer.close()


async def send_large(url: str, wire: bytes) -> str:
    """The status of the response, or the error of the connection."""
    place = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(wire)
        answer = await reader.readline()
        writer.close()
        return answer.split()[1].decode() if answer else "closed"
    except OSError as error:
        return type(error).__name__


def attack(url: str, streams: int, half: int, size: int, results: "multiprocessing.Queue[tuple[str, str]]") -> None:
    """The hostile clients, until the process is killed."""

    bodies = large_bodies(size)

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            begun = [asyncio.Semaphore(0) for _ in range(streams)]
            for number in range(streams):
                group.create_task(stream(session, url, str(number), begun[number]))
            for semaphore in begun:
                await semaphore.acquire()  # wait until all streams have begun
            for _ in range(half):
                group.create_task(half_open(url))
            results.put(("streams", "begun"))
            while True:
                for kind, wire in bodies:
                    results.put((kind, await send_large(url, wire)))
                    await asyncio.sleep(1.0)

    asyncio.run(run())


async def health_times(url: str, seconds: float) -> AsyncIterator[float]:
    """Seconds of each request to /health, alternately on a new connection and on one that stays open."""
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession() as kept:
        while time.perf_counter() < end:
            for session in (kept, aiohttp.ClientSession()):
                begun = time.perf_counter()
                async with session.get(f"{url}/health") as answer:
                    assert answer.status == 200, answer.status
                    await answer.read()
                yield time.perf_counter() - begun
                if session is not kept:
                    await session.close()
                await asyncio.sleep(PAUSE)


def figures(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p99 = (round(1e3 * float(np.percentile(times, q)), 2) for q in (50, 99))
    return {"p50_ms": p50, "p99_ms": p99, "worst_ms": round(1e3 * max(times), 2), "requests": len(times)}


def resident_mib(process: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / (1 << 20), 1)


async def measure() -> None:
    async with AsyncExitStack() as stack:
        server = started(stack, None, pause=0.1)
        gateway = started(stack, server.url)
        url, process = gateway.url, gateway.process
        async with aiohttp.ClientSession() as session:
            await base_card(session, server.url)
            await base_card(session, url)
        memory = [resident_mib(process)]
        idle = [seconds async for seconds in health_times(url, SECONDS.value)]
        context = multiprocessing.get_context("spawn")
        results: multiprocessing.Queue[tuple[str, str]] = context.Queue()
        arguments = (url, STREAMS.value, HALF_OPEN.value, BODY.value * 1_000_000, results)
        hostile = context.Process(target=attack, args=arguments, daemon=True)
        hostile.start()
        results.get()  # wait until all hostile clients are running
        loaded = [seconds async for seconds in health_times(url, SECONDS.value)]
        memory.append(resident_mib(process))
        hostile.kill()
        hostile.join()
        await asyncio.sleep(3.0)
        memory.append(resident_mib(process))
        statuses: dict[str, list[str]] = {}
        while not results.empty():
            kind, status = results.get()
            statuses.setdefault(kind, []).append(status)
        row = {"idle": figures(idle), "loaded": figures(loaded), "large_bodies": statuses}
        print(json.dumps({**row, "memory_mib": memory, "load_average": os.getloadavg()[0]}), flush=True)


if __name__ == "__main__":
    app.run(lambda _: asyncio.run(measure()))
