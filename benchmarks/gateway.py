"""The time that the gateway adds to a request: the same calls go to a server directly and through it, in turns.

    python -m benchmarks.gateway [--requests=300]                       # with a stand-in that answers at once
    python -m benchmarks.gateway --server=http://127.0.0.1:30000        # with a running SGLang server on this machine

Gateway and stand-in are separate processes. One client sends one call after the other over connections that stay open,
so
that a call waits only for its own work. The rows:

- ``later turn``: the conversation is known, as for nearly all calls of an agent.
- ``first request``: the gate of a random base of the quick start's size reads the prompt and decides.
- ``stream``: a later turn, streamed to its last byte.

The program prints one JSON object a row: milliseconds (p50, p99) directly and through the gateway, and the p50 and p99
of the differences between two corresponding calls.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import numpy as np
from absl import app, flags

from benchmarks.gateway_stage import SAID, base_card, started

SERVER = flags.DEFINE_string("server", "", "a running SGLang server; empty: a stand-in that answers at once")
REQUESTS = flags.DEFINE_integer("requests", 300, "measured calls of each row, after a tenth as many to warm up")
TOKENS = flags.DEFINE_integer("max_tokens", 4, "tokens that a server samples a call")


def figures(direct: list[float], through: list[float]) -> dict[str, float]:
    """Milliseconds of both, and of their differences."""
    rows = {"direct": np.array(direct), "gateway": np.array(through), "added": np.subtract(through, direct)}
    return {f"{n}_p{q}_ms": round(1e3 * float(np.percentile(row, q)), 3) for n, row in rows.items() for q in (50, 99)}


async def measure() -> None:
    async with AsyncExitStack() as stack:
        direct = SERVER.value or started(stack, None).url
        session = await stack.enter_async_context(aiohttp.ClientSession())
        card = await base_card(session, direct)
        model = card["id"]
        through = started(stack, direct, card["root"] if SERVER.value else "").url
        await base_card(session, through)

        async def ask(url: str, model: str, conversation: str, stream: bool) -> float:
            body = {
                "model": model, "max_tokens": TOKENS.value, "temperature": 0, "stream": stream,
                "messages": [{"role": "user", "content": f"{conversation} {SAID}"}],
            }  # fmt: skip
            begun = time.perf_counter()
            headers = {"X-Trace-Conversation": conversation}
            async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            return time.perf_counter() - begun

        rows: dict[str, Callable[[str, str, int], Awaitable[float]]] = {
            "later turn": lambda url, name, i: ask(url, name, "one", False),
            "first request": lambda url, name, i: ask(url, name, f"talk {i}", False),
            "stream": lambda url, name, i: ask(url, name, "one", True),
        }
        warm = max(1, REQUESTS.value // 10)
        for row, call in rows.items():
            times: dict[str, list[float]] = {direct: [], through: []}
            for i in range(-warm, REQUESTS.value):
                for url, name in ((direct, model), (through, "routed")):
                    seconds = await call(url, name, i)
                    if i >= 0:
                        times[url].append(seconds)
            print(json.dumps({"row": row, **figures(times[direct], times[through])}), flush=True)


if __name__ == "__main__":
    app.run(lambda _: asyncio.run(measure()))
