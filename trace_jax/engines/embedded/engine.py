"""The embedded engine: our decoder with a key/value cache and continuous batching, inside the caller's event loop."""

import asyncio
import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from trace_jax.engines.embedded.adapters import AdapterTable
from trace_jax.engines.embedded.executor import DecodeRow, PrefillRow, StepExecutor
from trace_jax.engines.embedded.slots import SlotAssignment, SlotTable
from trace_jax.engines.protocol import Completion, Sampling, checked_prompt
from trace_jax.engines.settings import EngineSettings
from trace_jax.errors import EngineError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import load_peft
from trace_jax.models.lora import LoRA

# Called with the tokens and log-probabilities that one step has sampled for a request.
OnTokens = Callable[[list[int], list[float]], None]


@dataclass
class EngineStats:
    """Counters since the engine was made. Seconds are wall-clock and exclude compilations."""

    prefill_tokens: int = 0  # prompt tokens computed, without padding
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
        """The token that the next step reads."""
        return self.tokens[-1] if self.tokens else int(self.prompt[-1])


class EmbeddedEngine:
    """An ``Engine`` made of a ``Decoder`` and a fixed number of cache slots, which are refilled as requests finish.

    A slot keeps its conversation between turns, so the next turn computes only its new tokens. Equal prompt prefixes
    are computed once and copied. The engine runs in the event loop of its callers, one step at a time. It is
    deterministic: the same requests in the same order give bitwise the same results.

    Args:
        decoder, config: the base model. Its weights must not change while the engine exists.
        stop_token_ids: a completion ends with the first token that is among these.
        settings: ``slots`` is the number of requests in flight, further requests wait; ``capacity`` bounds the tokens
            of a request's prompt and completion together.
        max_adapters, max_rank: room for adapters. It is fixed, so that loading an adapter compiles nothing.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: DecoderConfig,
        stop_token_ids: Sequence[int],
        settings: EngineSettings,
        *,
        max_rank: int = 16,
        max_adapters: int = 8,
    ) -> None:
        self._config, self._settings = config, settings
        self._stop_ids = frozenset(stop_token_ids)
        self._adapters = AdapterTable(decoder, config, max_adapters, max_rank)
        self._executor = StepExecutor(config, self._adapters, stop_token_ids, settings, decoder.embed[...].dtype)
        self._slots = self._empty_slots()
        self._queue: deque[_Request] = deque()
        self._running: dict[int, _Request] = {}
        self._serving: asyncio.Task[None] | None = None
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
        """Sample after ``token_ids``. ``affinity`` has no effect, because there is only one cache.

        ``on_tokens`` is called after each step with the tokens that it has sampled. It must not raise.

        Raises:
            EngineError: an unknown adapter, an empty prompt, a token id outside the vocabulary, more tokens than
                ``capacity``, sampling parameters out of range, or logits of the model that are not finite.
        """
        loop = asyncio.get_running_loop()
        prompt = checked_prompt(token_ids, sampling, self._config.vocab_size, self._settings.capacity).astype(np.int32)
        request = _Request(prompt, sampling, self._adapters.id(adapter), loop.create_future(), on_tokens)
        self._queue.append(request)
        if self._serving is None or self._serving.done() or self._serving.get_loop() is not loop:
            self._serving = loop.create_task(self._serve())
        return await request.future

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load a PEFT directory under a new name. Raises EngineError for a name in use and an unsuitable adapter."""
        self.set_adapter(name, load_peft(path, self._config))

    def set_adapter(self, name: str, lora: LoRA) -> None:
        """Add an adapter (A = 1) under a new name. Raises EngineError as ``load_adapter`` does."""
        self._adapters.add(name, lora)

    async def unload_adapter(self, name: str) -> None:
        """Remove an adapter and everything that was computed with it."""
        index = self._adapters.id(name)
        self._release_abandoned()
        if any(request.adapter == index for request in [*self._queue, *self._running.values()]):
            raise EngineError(f"adapter {name!r} serves requests: wait for them before you unload it")
        self._slots.forget_adapter(self._adapters.remove(name))

    async def health(self) -> bool:
        """Always true: the engine is in this process."""
        return True

    def flush(self) -> None:
        """Drop all cached conversations. Later results are those of a new engine, bit for bit."""
        self._release_abandoned()
        if in_flight := len(self._queue) + len(self._running):
            raise EngineError(f"{in_flight} requests are in flight: flush when they have ended")
        self._slots = self._empty_slots()

    async def _serve(self) -> None:
        try:
            while self._queue or self._running:
                await self._gather_requests()
                self._admit()
                if self._running:
                    self._decode()
        except BaseException as error:  # the callers that wait must learn of it, and the cache may be half written
            for request in [*self._queue, *self._running.values()]:
                if request.future.done():
                    continue
                if isinstance(error, Exception):
                    request.future.set_exception(error)
                else:
                    request.future.cancel()
            self._queue.clear()
            self._running.clear()
            self._slots = self._empty_slots()
            self._executor.reset()
            if not isinstance(error, Exception):
                raise

    def _empty_slots(self) -> SlotTable:
        return SlotTable(self._settings.slots, self._settings.capacity)

    async def _gather_requests(self) -> None:
        """Let all other tasks run until no more requests come, so that the batches are as full as possible."""
        quiet = 0
        while quiet < 3:
            before = len(self._queue)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == before else 0

    def _release_abandoned(self) -> None:
        """Drop the requests whose callers have been cancelled."""
        self._queue = deque(request for request in self._queue if not request.future.done())
        for slot in [slot for slot, request in self._running.items() if request.future.done()]:
            del self._running[slot]
            self._slots.release(slot)

    def _admit(self) -> None:
        self._release_abandoned()
        admitted = [self._queue.popleft() for _ in range(min(self._slots.free, len(self._queue)))]
        if not admitted:
            return
        assigned = self._slots.assign([r.prompt[:-1] for r in admitted], [r.adapter for r in admitted])
        with self._timed("prefill_seconds"):
            self._prefill(admitted, assigned)
        for request, assignment in zip(admitted, assigned, strict=True):
            self._running[assignment.slot] = request
            self.stats.reused_tokens += assignment.reused
            self.stats.prefill_tokens += len(request.prompt) - 1 - assignment.reused

    def _prefill(self, requests: list[_Request], assigned: list[SlotAssignment]) -> None:
        """Bring every prompt, without its last token, into the cache: first the copies, then the new tokens."""
        ready = self._slots.ready
        self._executor.copy([(a.source, a.slot) for a in assigned if a.source != a.slot and ready[a.slot] == a.reused])
        waiting = [a for a in assigned if a.source != a.slot and ready[a.slot] != a.reused]
        while True:
            copied = [a for a in waiting if ready[a.source] >= a.reused]
            self._executor.copy([(a.source, a.slot) for a in copied])
            for assignment in copied:
                ready[assignment.slot] = assignment.reused
            waiting = [a for a in waiting if a not in copied]
            not_yet = {a.slot for a in waiting}
            rows = []
            for request, assignment in zip(requests, assigned, strict=True):
                start, end = int(ready[assignment.slot]), len(request.prompt) - 1
                if assignment.slot not in not_yet and start < end:
                    rows.append(PrefillRow(assignment.slot, start, request.prompt[start:end], request.adapter))
                    ready[assignment.slot] = end
            self._executor.prefill(rows)
            if not waiting:
                return
            assert rows or copied, "requests wait for each other's prefixes"

    def _decode(self) -> None:
        rows = []
        for slot, request in self._running.items():
            sampling, past = request.sampling, len(request.tokens)
            rows.append(
                DecodeRow(
                    slot=slot, start=int(self._slots.ready[slot]), last=request.last, adapter=request.adapter,
                    seed=_seed31(sampling.seed), past=past, allowed=sampling.max_tokens - past,
                    temperature=sampling.temperature,
                )
            )  # fmt: skip
        with self._timed("decode_seconds"):
            sampled = self._executor.decode(rows)
        for slot, (tokens, logprobs) in sampled.items():
            self.stats.decode_tokens += len(tokens)
            self._take(slot, tokens, logprobs)

    @contextmanager
    def _timed(self, counter: Literal["prefill_seconds", "decode_seconds"]) -> Iterator[None]:
        """Add the seconds of the block, without compilations, to a counter."""
        started, compiled = time.perf_counter(), self._executor.compile_seconds
        yield
        compiling = self._executor.compile_seconds - compiled
        seconds = time.perf_counter() - started - compiling
        setattr(self.stats, counter, getattr(self.stats, counter) + seconds)
        self.stats.compile_seconds = self._executor.compile_seconds
        self.stats.compilations = self._executor.compilations

    def _take(self, slot: int, tokens: list[int], logprobs: list[float]) -> None:
        """Add what a step has sampled in a slot to its request, which may have finished."""
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
            self._executor.clear(slot)
        if request.future.done():
            return
        if finite:
            reason: Literal["stop", "length"] = "stop" if stopped else "length"
            request.future.set_result(Completion(tuple(request.tokens), tuple(request.logprobs), reason))
        else:
            error = EngineError("the model returned logits that are not finite: check its weights and its adapter's")
            request.future.set_exception(error)


def _seed31(seed: int) -> int:
    """``seed`` if the sampler can hold it, in [0, 2^31), else a hash of it there: other seeds give other samples."""
    return seed if 0 <= seed < 1 << 31 else zlib.crc32(str(seed).encode()) & 0x7FFFFFFF
