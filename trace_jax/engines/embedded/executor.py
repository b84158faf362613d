"""Runs the compiled steps on all slots: splits the slots into shards, and runs the shards in threads."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.engines.embedded import steps
from trace_jax.engines.embedded.adapters import BASE, AdapterTable
from trace_jax.engines.embedded.cache import BLOCK, Cache, clear_slot, copy_slot, new_cache, put_blocks, take_blocks
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import LoRA

_LOG = logging.getLogger(__name__)

# On the CPU, XLA does not split the operations of a small model among the cores. The slots are therefore split into two
# shards, each with its own cache and thread, which run at the same time. Each shard reads all weights, so a shard with
# few rows would spend most of a product on that: fewer than ``_SHARD_ROWS`` rows a shard, and there is only one shard.
# The number of shards does not depend on the number of cores, because results must not.
_CPU_SHARDS, _SHARD_ROWS = 2, 16

Row = TypeVar("Row", "PrefillRow", "DecodeRow")


@dataclass(frozen=True)
class PrefillRow:
    """The next tokens of a slot. ``start`` columns of the slot are filled already."""

    slot: int
    start: int
    tokens: np.ndarray  # int32
    adapter: int


@dataclass(frozen=True)
class DecodeRow:
    """A slot to sample in. ``start`` columns of the slot are filled already; ``last`` is not in the cache yet."""

    slot: int
    start: int
    last: int  # token
    adapter: int
    seed: int
    past: int  # tokens sampled before
    allowed: int  # tokens that may still be sampled
    temperature: float


class StepExecutor:
    """The caches of all slots, and the steps that run on them. Slot z is row z // n of shard z % n."""

    def __init__(
        self,
        config: DecoderConfig,
        adapters: AdapterTable,
        stop_token_ids: Sequence[int],
        settings: EngineSettings,
        dtype: Any,
    ) -> None:
        self._config, self._adapters, self._capacity, self._dtype = config, adapters, settings.capacity, dtype
        self._stop = jnp.asarray(sorted(stop_token_ids) or [-1], jnp.int32)
        slots = settings.slots
        self._count = min(_CPU_SHARDS, max(1, slots // _SHARD_ROWS)) if jax.default_backend() == "cpu" else 1
        self._rows = -(-slots // self._count)
        self._caches = self._empty_caches()
        self._threads = ThreadPoolExecutor(self._count, "shard")
        self._compiled: set[tuple[str, int, bool]] = set()
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """Number of distinct shapes that have run."""
        return len(self._compiled)

    def reset(self) -> None:
        """Start again with empty caches, after a step that failed half-way."""
        self._caches = self._empty_caches()

    def clear(self, slot: int) -> None:
        """Set a slot's cache to zero."""
        shard, row = slot % self._count, slot // self._count
        self._caches[shard] = clear_slot(self._caches[shard], np.int32(row))

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole slots, one (source, target) pair after the other."""
        for source, target in pairs:
            shard, other = target % self._count, source % self._count
            self._caches[shard] = copy_slot(
                self._caches[shard],
                None if shard == other else self._caches[other],
                np.int32(source // self._count),
                np.int32(target // self._count),
            )

    def prefill(self, rows: Sequence[PrefillRow]) -> None:
        """Compute the cache columns of each row's tokens.

        Tokens are cut into chunks. Chunks of one row may share a call: in each layer a call writes all its columns
        before it reads them.
        """
        width = steps.PREFILL_WIDTH
        by_shard = self._split(
            [
                PrefillRow(row.slot, row.start + first, row.tokens[first : first + width], row.adapter)
                for row in rows
                for first in range(0, len(row.tokens), width)
            ]
        )
        while any(by_shard):
            self._run([self._prefill(i, chunk[: steps.PREFILL_ROWS]) for i, chunk in enumerate(by_shard) if chunk])
            by_shard = [chunk[steps.PREFILL_ROWS :] for chunk in by_shard]

    def decode(self, rows: Sequence[DecodeRow]) -> dict[int, tuple[list[int], list[float]]]:
        """Sample some tokens in each row's slot. Returns tokens and log-probabilities by slot."""
        by_shard = self._split(rows)
        results = iter(self._run([self._decode(i, of_shard) for i, of_shard in enumerate(by_shard) if of_shard]))
        sampled = {}
        for of_shard in filter(None, by_shard):
            tokens, logprobs, counts = (np.asarray(x) for x in next(results))
            for row in of_shard:
                z = row.slot // self._count
                sampled[row.slot] = tokens[z, : counts[z]].tolist(), logprobs[z, : counts[z]].tolist()
        return sampled

    def _empty_caches(self) -> list[Cache]:
        return [new_cache(self._config, self._rows, self._capacity, self._dtype) for _ in range(self._count)]

    def _split(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows of each shard."""
        return [[row for row in rows if row.slot % self._count == shard] for shard in range(self._count)]

    def _prefill(self, shard: int, rows: list[PrefillRow]) -> "_Call":
        table = np.zeros((steps.PREFILL_ROWS, 4), np.int32)
        tokens = np.zeros((steps.PREFILL_ROWS, steps.PREFILL_WIDTH), np.int32)
        for i, row in enumerate(rows):
            table[i] = row.slot // self._count, row.start, len(row.tokens), row.adapter
            tokens[i, : len(row.tokens)] = row.tokens
        columns = max(row.start + len(row.tokens) for row in rows)
        return self._call("prefill", shard, columns, {row.adapter for row in rows}, table, tokens)

    def _decode(self, shard: int, rows: list[DecodeRow]) -> "_Call":
        table = np.zeros((self._rows, 6), np.int32)
        table[:, 2] = BASE
        temperature = np.ones(self._rows, np.float32)
        for row in rows:
            z = row.slot // self._count
            table[z] = row.last, row.start, row.adapter, row.seed, row.past, row.allowed
            temperature[z] = row.temperature
        columns = max(row.start + min(row.allowed, steps.DECODE_STEPS) for row in rows)
        quorum = np.int32(max(1, len(rows) // 2))  # more would leave finished rows waiting, fewer would stop too often
        adapters = {row.adapter for row in rows}
        return self._call("decode", shard, columns, adapters, table, temperature, self._stop, quorum)

    def _call(
        self, step: Literal["prefill", "decode"], shard: int, columns: int, adapters: set[int], *arguments: Any
    ) -> "_Call":
        blocks = -(-columns // BLOCK)  # each number of blocks is one compilation
        params, lora = self._adapters.weights(adapters)
        return _Call(step, shard, blocks, params, arguments, lora)

    def _run(self, calls: "list[_Call]") -> list[Any]:
        """Run one call a shard, all at the same time. A call of a new shape runs alone, so that it compiles once."""
        results: dict[int, Any] = {}
        for call in calls:
            if call.key not in self._compiled:
                started = time.perf_counter()
                results[call.shard] = self._execute(call)
                seconds = time.perf_counter() - started
                self._compiled.add(call.key)
                self.compile_seconds += seconds
                adapters = "one adapter" if call.lora is None else "mixed adapters"
                shape = f"{self._rows} slots, {call.blocks * BLOCK} columns, {adapters}"
                _LOG.debug("compiled %s for %s in %.1f s", call.step, shape, seconds)
        rest = [call for call in calls if call.shard not in results]
        run: Callable[..., Any] = self._threads.map if len(rest) > 1 else map
        results |= zip((call.shard for call in rest), run(self._execute, rest), strict=True)
        return [results[call.shard] for call in calls]

    def _execute(self, call: "_Call") -> Any:
        """What the step returns besides the cache."""
        cache = take_blocks(self._caches[call.shard], call.blocks)
        step = steps.prefill if call.step == "prefill" else steps.decode
        result = jax.block_until_ready(step(self._config, call.params, cache, *call.arguments, call.lora))
        head, rest = (result, None) if call.step == "prefill" else (result[0], result[1:])
        self._caches[call.shard] = put_blocks(self._caches[call.shard], head)
        return rest


@dataclass(frozen=True)
class _Call:
    """A step on one shard. ``arguments`` are those between the cache and ``lora``."""

    step: Literal["prefill", "decode"]
    shard: int
    blocks: int
    params: steps.Params
    arguments: tuple[Any, ...]
    lora: LoRA | None

    @property
    def key(self) -> tuple[str, int, bool]:
        """What decides the compiled program."""
        return self.step, self.blocks, self.lora is not None
