"""The embedded engine: our decoder with a key/value cache and continuous batching, inside the caller's event loop."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA
from trace_jax.models.peft import load_peft
from trace_jax.rollout import steps
from trace_jax.rollout.adapters import BASE, AdapterTable
from trace_jax.rollout.cache import BLOCK, clear_slot, copy_slots, new_cache, put_blocks, take_blocks
from trace_jax.rollout.engine import Completion, EngineError, Sampling
from trace_jax.rollout.slots import Placement, Slots

_LOG = logging.getLogger(__name__)


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
        self._stop = jnp.asarray(sorted(self._stop_ids) or [-1], jnp.int32)
        self._dtype = decoder.embed[...].dtype
        self._adapters = AdapterTable(decoder, config, max_adapters, max_rank)
        self._num_slots = slots
        self._queue: deque[_Request] = deque()
        self._running: dict[int, _Request] = {}
        self._pump: asyncio.Task[None] | None = None
        self._compiled: set[tuple[object, ...]] = set()
        self.stats = EngineStats()
        self._reset()

    async def generate(self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None) -> Completion:
        """Sample after ``token_ids``.

        Raises:
            EngineError: unknown adapter; no prompt, token ids outside the vocabulary, more tokens than ``capacity``;
                impossible sampling; or the model returned non-finite logits.
        """
        loop = asyncio.get_running_loop()
        prompt = self._checked(token_ids, sampling)
        request = _Request(prompt, sampling, self._adapters.id(adapter), loop.create_future())
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
        if any(request.adapter == index for request in [*self._queue, *self._running.values()]):
            raise EngineError(f"adapter {name!r} serves requests: wait for them before you unload it")
        self._slots.forget_adapter(self._adapters.remove(name))

    async def health(self) -> bool:
        return True

    def flush(self) -> None:
        """Forget all cached conversations: what follows is as after a fresh start, bit for bit."""
        if in_flight := len(self._queue) + len(self._running):
            raise EngineError(f"{in_flight} requests are in flight: flush when they have ended")
        self._slots = Slots(self._num_slots, self._capacity)

    def _checked(self, token_ids: Sequence[int], sampling: Sampling) -> np.ndarray:
        prompt = np.asarray(token_ids, np.int64)
        if prompt.ndim != 1 or not prompt.size:
            raise EngineError("the prompt has no tokens: give at least one")
        outside = prompt[(prompt < 0) | (prompt >= self._config.vocab_size)]
        if outside.size:
            raise EngineError(f"token id {outside[0]} is outside the vocabulary of {self._config.vocab_size}")
        if sampling.max_tokens < 1:
            raise EngineError(f"max_tokens is {sampling.max_tokens}: ask for at least 1")
        if prompt.size + sampling.max_tokens > self._capacity:
            raise EngineError(
                f"prompt of {prompt.size} tokens and max_tokens {sampling.max_tokens} exceed the engine's capacity of "
                f"{self._capacity}: shorten them or make the engine larger"
            )
        if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
            raise EngineError(f"temperature is {sampling.temperature}: give a finite number >= 0")
        return prompt.astype(np.int32)

    def _reset(self) -> None:
        self._slots = Slots(self._num_slots, self._capacity)
        self._cache = new_cache(self._config, self._num_slots, self._capacity, self._dtype)

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
            self._reset()
            if not isinstance(error, Exception):
                raise

    async def _settle(self) -> None:
        """Let every episode that can run do so, until no more requests come: batches are then as full as can be."""
        quiet = 0
        while quiet < 3:
            before = len(self._queue)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == before else 0

    def _admit(self) -> None:
        for slot in [slot for slot, request in self._running.items() if request.future.done()]:  # its caller has gone
            del self._running[slot]
            self._slots.release(slot)
        room = self._slots.free
        admitted: list[_Request] = []
        while self._queue and len(admitted) < room:
            request = self._queue.popleft()
            if not request.future.done():
                admitted.append(request)
        if not admitted:
            return
        placements = self._slots.place([r.prompt[:-1] for r in admitted], [r.adapter for r in admitted])
        started, compiled = time.perf_counter(), self.stats.compile_seconds
        self._fill(admitted, placements)
        jax.block_until_ready(self._cache)
        self.stats.prefill_seconds += time.perf_counter() - started - (self.stats.compile_seconds - compiled)
        for request, placement in zip(admitted, placements, strict=True):
            self._running[placement.slot] = request
            self.stats.reused_tokens += placement.reused
            self.stats.prefill_tokens += len(request.prompt) - 1 - placement.reused

    def _fill(self, requests: list[_Request], placements: list[Placement]) -> None:
        """Bring every placed prompt but its last token into the cache: copies first, then block after block."""
        ready = self._slots.ready
        self._copy([p for p in placements if p.source != p.slot and ready[p.slot] == p.reused])
        waiting = [p for p in placements if p.source != p.slot and ready[p.slot] != p.reused]
        while True:
            can = [p for p in waiting if ready[p.source] >= p.reused]
            self._copy(can)
            for placement in can:
                ready[placement.slot] = placement.reused
            waiting = [p for p in waiting if p not in can]
            held = {p.slot for p in waiting}
            todo = [
                (r, p.slot) for r, p in zip(requests, placements, strict=True)
                if p.slot not in held and ready[p.slot] < len(r.prompt) - 1
            ]  # fmt: skip
            if not todo:
                return
            for first in range(0, len(todo), steps.PREFILL_ROWS):
                self._prefill(todo[first : first + steps.PREFILL_ROWS])

    def _copy(self, placements: list[Placement]) -> None:
        if placements:
            pairs = np.zeros((2, self._num_slots), np.int32)
            pairs[:, : len(placements)] = np.array([[p.source, p.slot] for p in placements]).T
            self._cache = copy_slots(self._cache, pairs[0], pairs[1], np.int32(len(placements)))

    def _prefill(self, todo: list[tuple[_Request, int]]) -> None:
        """One block of the next tokens of up to ``PREFILL_ROWS`` prompts."""
        rows = np.zeros((steps.PREFILL_ROWS, 4), np.int32)
        tokens = np.zeros((steps.PREFILL_ROWS, steps.PREFILL_WIDTH), np.int32)
        for i, (request, slot) in enumerate(todo):
            start = int(self._slots.ready[slot])
            block = request.prompt[start : min(start + steps.PREFILL_WIDTH, len(request.prompt) - 1)]
            rows[i] = slot, start, len(block), request.adapter
            tokens[i, : len(block)] = block
            self._slots.ready[slot] = start + len(block)
        params, lora = self._adapters.weights({request.adapter for request, _ in todo})
        self._step("prefill", int(np.max(rows[:, 1] + rows[:, 2])), steps.prefill, params, lora, rows, tokens)

    def _decode(self) -> None:
        started, compiled = time.perf_counter(), self.stats.compile_seconds
        rows = np.zeros((self._num_slots, 6), np.int32)
        rows[:, 2] = BASE
        temperature = np.ones(self._num_slots, np.float32)
        for slot, request in self._running.items():
            sampling, past = request.sampling, len(request.tokens)
            seed, allowed = sampling.seed & 0x7FFFFFFF, sampling.max_tokens - past
            rows[slot] = request.last, self._slots.ready[slot], request.adapter, seed, past, allowed
            temperature[slot] = sampling.temperature
        params, lora = self._adapters.weights({request.adapter for request in self._running.values()})
        columns = int(np.max(rows[:, 1] + np.minimum(rows[:, 5], steps.DECODE_STEPS)))
        quorum = np.int32(max(1, len(self._running) // 4))
        sampled = self._step("decode", columns, steps.decode, params, lora, rows, temperature, self._stop, quorum)
        tokens, logprobs, counts = (np.asarray(x) for x in sampled)
        for slot in list(self._running):
            n = int(counts[slot])
            self._harvest(slot, tokens[slot, :n].tolist(), logprobs[slot, :n].tolist())
            self.stats.decode_tokens += n
        self.stats.decode_seconds += time.perf_counter() - started - (self.stats.compile_seconds - compiled)

    def _harvest(self, slot: int, tokens: list[int], logprobs: list[float]) -> None:
        request = self._running[slot]
        self._slots.append(slot, [request.last, *tokens[:-1]])
        request.tokens += tokens
        request.logprobs += logprobs
        stopped = request.tokens[-1] in self._stop_ids
        finite = all(map(math.isfinite, logprobs))
        if finite and not stopped and len(request.tokens) < request.sampling.max_tokens:
            return
        del self._running[slot]
        self._slots.release(slot)
        if not finite:
            self._slots.forget(slot)
            self._cache = clear_slot(self._cache, np.int32(slot))
        if request.future.done():
            return
        if finite:
            reason: Literal["stop", "length"] = "stop" if stopped else "length"
            request.future.set_result(Completion(tuple(request.tokens), tuple(request.logprobs), reason))
        else:
            error = EngineError("the model returned logits that are not finite: check its weights and its adapter's")
            request.future.set_exception(error)

    def _step(
        self, name: str, columns: int, step: Any, params: steps.Params, lora: LoRA | None, *arguments: Any
    ) -> list[jax.Array]:
        """Run a compiled step on as many blocks as hold ``columns``; each number of blocks is one compilation."""
        blocks = -(-columns // BLOCK)
        key = (name, blocks, lora is not None)
        started = time.perf_counter()
        result = step(self._config, params, take_blocks(self._cache, blocks), *arguments, lora)
        head, rest = (result, []) if name == "prefill" else (result[0], result[1:])
        self._cache = put_blocks(self._cache, head)
        if key not in self._compiled:
            jax.block_until_ready(head)
            seconds = time.perf_counter() - started
            self._compiled.add(key)
            self.stats.compilations += 1
            self.stats.compile_seconds += seconds
            adapters = "mixed adapters" if lora is not None else "one adapter"
            shape = f"{self._num_slots} slots, {blocks * BLOCK} columns, {adapters}"
            _LOG.info("compiled %s for %s in %.1f s", name, shape, seconds)
        return rest
