"""Sampled tokens per second of the embedded engine, compared with ``transformers.generate`` in the same run.

    python -m benchmarks.decode [--repeats=5] [--nopeer]

The model has random weights and the quick start's size, because only the time matters. The rows:

- ``steady``: 64 prompts of equal length, all completions of equal length. Only this row is measured for the peer.
- ``one adapter``, ``mixed adapters``: the same, with one LoRA adapter for all rows or a different one for each.
- ``episodes``: 192 conversations of 6 turns, 64 at a time, in groups of 8 with a common prompt, with completions of 4
  to 40 tokens. The time includes all prompt tokens. The peer would recompute the history at every turn.

The program prints one JSON object a row: tokens per second (median and best of the repeats), tokens per CPU-second, and
the ratio to the peer.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from flax import nnx

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats import huggingface
from trace_jax.models.lora import LoRA, init_lora

REPEATS = flags.DEFINE_integer("repeats", 5, "measured runs of each of our rows, after one to warm up")
PEER = flags.DEFINE_bool("peer", True, "measure transformers as well (needs the dev extra)")
ROWS, PROMPT, COMPLETION = 64, 96, 128

CONFIG = DecoderConfig(
    vocab_size=600, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, intermediate_size=384,
    tie_embeddings=True,
)  # fmt: skip

Requests = list[tuple[tuple[int, ...], Sampling, str | None]]


def adapter(seed: int) -> LoRA:
    """An adapter of rank 16 on all projections, with weights far enough from zero to have an effect."""
    fresh = init_lora(CONFIG, 16, 16.0, key=jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return LoRA(jax.tree.map(lambda x: 0.05 * rng.standard_normal(x.shape, np.float32), fresh.weights), fresh.scale)


def measure(work: Callable[[], int], repeats: int) -> dict[str, float]:
    """Figures of ``work``, which returns its number of sampled tokens. It runs ``repeats`` times, after one warm-up."""
    work()
    rates, per_cpu = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = work()
        rates.append(tokens / (time.perf_counter() - wall))
        per_cpu.append(tokens / (time.process_time() - cpu))
    return {
        "tokens_per_second": round(statistics.median(rates)),
        "best": round(max(rates)),
        "tokens_per_cpu_second": round(statistics.median(per_cpu)),
    }


def steady(engine: EmbeddedEngine, names: list[str | None]) -> Callable[[], int]:
    rng = np.random.default_rng(0)

    def work() -> int:
        engine.flush()
        prompts = rng.integers(0, CONFIG.vocab_size, (ROWS, PROMPT)).tolist()
        requests = [(tuple(p), Sampling(COMPLETION, 1.0, i), names[i % len(names)]) for i, p in enumerate(prompts)]

        async def all_of_them() -> int:
            done = await asyncio.gather(*(engine.generate(*request) for request in requests))
            return sum(len(completion.token_ids) for completion in done)

        return asyncio.run(all_of_them())

    return work


def episodes(engine: EmbeddedEngine) -> Callable[[], int]:
    def work() -> int:
        engine.flush()
        rng = np.random.default_rng(1)  # the same lengths each time

        def some(length: int) -> tuple[int, ...]:
            return tuple(rng.integers(0, CONFIG.vocab_size, length).tolist())

        system = some(40)
        groups = [system + some(40) for _ in range(192 // 8)]
        plans = [(groups[i // 8], rng.integers(4, 40, 6).tolist(), [some(20) for _ in range(6)]) for i in range(192)]

        async def all_of_them() -> int:
            seats = asyncio.Semaphore(ROWS)

            async def one(number: int) -> int:
                tokens, lengths, answers = plans[number]
                count = 0
                async with seats:
                    for turn, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
                        completion = await engine.generate(tokens, Sampling(length, 1.0, 6 * number + turn))
                        count += len(completion.token_ids)
                        tokens = tokens + completion.token_ids + answer
                return count

            return sum(await asyncio.gather(*map(one, range(len(plans)))))

        return asyncio.run(all_of_them())

    return work


def peer(decoder: Decoder) -> Callable[[], int]:
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as directory:
        huggingface.save(decoder, CONFIG, directory)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    tokens = torch.randint(0, CONFIG.vocab_size, (ROWS, PROMPT))

    def work() -> int:
        with torch.inference_mode():
            out = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=True, top_k=0, pad_token_id=0,
                max_new_tokens=COMPLETION, min_new_tokens=COMPLETION,
            )  # fmt: skip
        return int(out[:, PROMPT:].numel())

    return work


def main(_: list[str]) -> None:
    decoder = Decoder(CONFIG, nnx.Rngs(0))
    engine = EmbeddedEngine(decoder, CONFIG, (), EngineSettings(slots=ROWS, capacity=512))
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        engine.set_adapter(name, adapter(seed))
    base = measure(peer(decoder), 2) if PEER.value else None
    if base is not None:
        print(json.dumps({"row": "transformers steady", **base}), flush=True)
    for row, work in [
        ("steady", steady(engine, [None])),
        ("one adapter", steady(engine, ["a"])),
        ("mixed adapters", steady(engine, [None, *names])),
        ("episodes", episodes(engine)),
    ]:
        result = measure(work, REPEATS.value)
        ratio = (
            {} if base is None else {"ratio_to_peer": round(result["tokens_per_second"] / base["tokens_per_second"], 2)}
        )
        print(json.dumps({"row": row, **result, **ratio}), flush=True)
    stats = engine.stats
    compiled = {"compilations": stats.compilations, "compile_seconds": round(stats.compile_seconds, 1)}
    print(json.dumps({**compiled, "cores": os.cpu_count(), "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    app.run(main)
