"""The embedded engine: our decoder with a key/value cache and continuous batching, inside the caller's event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trace_jax.engines.embedded.adapters import AdapterTable
from trace_jax.engines.embedded.lanes import DecodeRow, Lanes, PrefillRow
from trace_jax.engines.embedded.slots import Placement, Slots
from trace_jax.engines.protocol import Completion, Sampling, checked_prompt
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import load_peft
from trace_jax.models.lora import LoRA

# Hears what one step has sampled for a request: tokens, log-probabilities.
OnTokens = Callable[[list[int], list[float]], None]


@dataclass
class EngineStats:
    """Counters since the engine was made. Seconds are wall-clock and exclude compilations."""

    prefill_tokens: int = 0  # prompt tokens computed, padding aside
    reused_tokens: int = 0  # prompt tokens found in the cache
    decode_tokens: int = 0  # tokens sampled
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    compilations: int = 0
    compile_seconds: float = 0.0


@dataclass(eq=False)
class _Request:
    prompt: np.ndarray  # int32
    sampling: Sampling
    adapter: int
    future: "asyncio.Future[Completion]"
    on_tokens: OnTokens | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The token to feed next."""
        return self.tokens[-1] if self.tokens else int(self.prompt[-1])


class EmbeddedEngine:
    """Serves ``Engine`` from a ``Decoder``: a fixed number of cache slots, refilled as requests finish.

    A slot keeps its conversation between turns, so a next turn computes only what is new; equal prompt prefixes are
    computed once and copied. It runs in the event loop of its callers, one step at a time, and is deterministic: the
    same requests in the same order give bitwise the same results.

    Args:
        decoder, config: the base model. Its weights must not change while the engine lives.
        stop_token_ids: a completion ends with the first of these.
        slots: requests in flight; more wait.
        capacity: tokens of prompt and completion together that a request may have.
        max_adapters, max_rank: room for adapters; fixed, so that loading one compiles nothing.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: DecoderConfig,
        stop_token_ids: Sequence[int],
        *,
        slots: int = 64,
        capacity: int = 512,
        max_rank: int = 16,
        max_adapters: int = 8,
    ):
        self._config, self._capacity = config, capacity
        self._stop_ids = frozenset(stop_token_ids)
        self._adapters = AdapterTable(decoder, config, max_adapters, max_rank)
        self._lanes = Lanes(config, self._adapters, stop_token_ids, slots, capacity, decoder.embed[...].dtype)
        self._new_slots = lambda: Slots(slots, capacity)
        self._slots = self._new_slots()
        self._queue: deque[_Request] = deque()
        self._running: dict[int, _Request] = {}
        self._pump: asyncio.Task[None] | None = None
        self.stats = EngineStats()

    async def generate(
        self,
        token_ids: tuple[int, ...],
        sampling: Sampling,
        adapter: str | None = None,
        *,
        affinity: str = "",
        on_tokens: OnTokens | None = None,
    ) -> Completion:
        """Sample after ``token_ids``. There is one cache, so that ``affinity`` tells nothing.

        ``on_tokens`` hears of the tokens as they are sampled, step by step; it must not raise.

        Raises:
            EngineError: unknown adapter; no prompt, token ids outside the vocabulary, more tokens than ``capacity``;
                impossible sampling; or the model returned non-finite logits.
        """
        loop = asyncio.get_running_loop()
        prompt = checked_prompt(token_ids, sampling, self._config.vocab_size, self._capacity).astype(np.int32)
        request = _Request(prompt, sampling, self._adapters.id(adapter), loop.create_future(), on_tokens)
        self._queue.append(request)
        if self._pump is None or self._pump.done() or self._pump.get_loop() is not loop:
            self._pump = loop.create_task(self._serve())
        return await request.future

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under a new name."""
        self.set_adapter(name, load_peft(path, self._config))

    def set_adapter(self, name: str, lora: LoRA) -> None:
        """Hold an adapter (A = 1) under a new name."""
        self._adapters.add(name, lora)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter and all that was computed with it."""
        index = self._adapters.id(name)
        self._release_abandoned()
        if any(request.adapter == index for request in [*self._queue, *self._running.values()]):
            raise EngineError(f"adapter {name!r} serves requests: wait for them before you unload it")
        self._slots.forget_adapter(self._adapters.remove(name))

    async def health(self) -> bool:
        return True

    def flush(self) -> None:
        """Forget all cached conversations: what follows is as after a fresh start, bit for bit."""
        self._release_abandoned()
        if in_flight := len(self._queue) + len(self._running):
            raise EngineError(f"{in_flight} requests are in flight: flush when they have ended")
        self._slots = self._new_slots()

    async def _serve(self) -> None:
        try:
            while self._queue or self._running:
                await self._settle()
                self._admit()
                if self._running:
                    self._decode()
        except BaseException as error:  # whoever waits must learn of it; the cache may be half written
            for request in [*self._queue, *self._running.values()]:
                if request.future.done():
                    continue
                if isinstance(error, Exception):
                    request.future.set_exception(error)
                else:
                    request.future.cancel()
            self._queue.clear()
            self._running.clear()
            self._slots = self._new_slots()
            self._lanes.reset()
            if not isinstance(error, Exception):
                raise

    async def _settle(self) -> None:
        """Let every episode that can run do so, until no more requests come: batches are then as full as can be."""
        quiet = 0
        while quiet < 3:
            before = len(self._queue)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == before else 0

    def _release_abandoned(self) -> None:
        """Drop the requests whose callers have gone."""
        self._queue = deque(request for request in self._queue if not request.future.done())
        for slot in [slot for slot, request in self._running.items() if request.future.done()]:
            del self._running[slot]
            self._slots.release(slot)

    def _admit(self) -> None:
        self._release_abandoned()
        admitted = [self._queue.popleft() for _ in range(min(self._slots.free, len(self._queue)))]
        if not admitted:
            return
        placements = self._slots.place([r.prompt[:-1] for r in admitted], [r.adapter for r in admitted])
        self._clocked("prefill_seconds", self._fill, admitted, placements)
        for request, placement in zip(admitted, placements, strict=True):
            self._running[placement.slot] = request
            self.stats.reused_tokens += placement.reused
            self.stats.prefill_tokens += len(request.prompt) - 1 - placement.reused

    def _fill(self, requests: list[_Request], placements: list[Placement]) -> None:
        """Bring every placed prompt but its last token into the cache: copies first, then what is new."""
        ready = self._slots.ready
        self._lanes.copy([(p.source, p.slot) for p in placements if p.source != p.slot and ready[p.slot] == p.reused])
        waiting = [p for p in placements if p.source != p.slot and ready[p.slot] != p.reused]
        while True:
            can = [p for p in waiting if ready[p.source] >= p.reused]
            self._lanes.copy([(p.source, p.slot) for p in can])
            for placement in can:
                ready[placement.slot] = placement.reused
            waiting = [p for p in waiting if p not in can]
            held = {p.slot for p in waiting}
            todo = []
            for request, placement in zip(requests, placements, strict=True):
                start, end = int(ready[placement.slot]), len(request.prompt) - 1
                if placement.slot not in held and start < end:
                    todo.append(PrefillRow(placement.slot, start, request.prompt[start:end], request.adapter))
                    ready[placement.slot] = end
            self._lanes.prefill(todo)
            if not waiting:
                return
            assert todo or can, "requests wait for each other's prefixes"

    def _decode(self) -> None:
        rows = []
        for slot, request in self._running.items():
            sampling, past = request.sampling, len(request.tokens)
            rows.append(
                DecodeRow(
                    slot=slot, start=int(self._slots.ready[slot]), last=request.last, adapter=request.adapter,
                    seed=sampling.seed & 0x7FFFFFFF, past=past, allowed=sampling.max_tokens - past,
                    temperature=sampling.temperature,
                )
            )  # fmt: skip
        for slot, (tokens, logprobs) in self._clocked("decode_seconds", self._lanes.decode, rows).items():
            self.stats.decode_tokens += len(tokens)
            self._harvest(slot, tokens, logprobs)

    def _clocked(self, counter: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function and add its seconds, compilations aside, to a counter."""
        started, compiled = time.perf_counter(), self._lanes.compile_seconds
        result = function(*arguments)
        compiling = self._lanes.compile_seconds - compiled
        seconds = time.perf_counter() - started - compiling
        setattr(self.stats, counter, getattr(self.stats, counter) + seconds)
        self.stats.compile_seconds, self.stats.compilations = self._lanes.compile_seconds, self._lanes.compilations
        return result

    def _harvest(self, slot: int, tokens: list[int], logprobs: list[float]) -> None:
        request = self._running[slot]
        self._slots.append(slot, [request.last, *tokens[:-1]])
        request.tokens += tokens
        request.logprobs += logprobs
        stopped = request.tokens[-1] in self._stop_ids
        finite = all(map(math.isfinite, logprobs))
        if finite and request.on_tokens is not None and not request.future.done():
            request.on_tokens(tokens, logprobs)
        if finite and not stopped and len(request.tokens) < request.sampling.max_tokens:
            return
        del self._running[slot]
        self._slots.release(slot)
        if not finite:
            self._slots.forget(slot)
            self._lanes.clear(slot)
        if request.future.done():
            return
        if finite:
            reason: Literal["stop", "length"] = "stop" if stopped else "length"
            request.future.set_result(Completion(tuple(request.tokens), tuple(request.logprobs), reason))
        else:
            error = EngineError("the model returned logits that are not finite: check its weights and its adapter's")
            request.future.set_exception(error)
