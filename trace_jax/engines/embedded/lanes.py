"""The compiled steps on all slots: blocks, batches, threads."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.engines.embedded import steps
from trace_jax.engines.embedded.adapters import BASE, AdapterTable
from trace_jax.engines.embedded.cache import BLOCK, clear_slot, copy_slot, new_cache, put_blocks, take_blocks
from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import LoRA

_LOG = logging.getLogger(__name__)

# On the CPU the operations of a small model are too small to be shared out among cores, so the slots are dealt to two
# lanes, each with its own cache, which run at the same time. A lane of few rows would spend most of a product reading
# weights, which each lane does for itself: then there is one. The number does not depend on the machine's cores, as
# results must not.
_CPU_LANES, _LANE_ROWS = 2, 16


@dataclass(frozen=True)
class PrefillRow:
    """The next tokens of a slot, and the columns filled before."""

    slot: int
    start: int
    tokens: np.ndarray
    adapter: int


@dataclass(frozen=True)
class DecodeRow:
    """A slot to sample in: its last token (not yet in the cache), and the columns filled before."""

    slot: int
    start: int
    last: int
    adapter: int
    seed: int
    past: int
    allowed: int
    temperature: float


class Lanes:
    """Caches of all slots and the steps on them. Slot z is row z // n of lane z % n."""

    def __init__(
        self,
        config: DecoderConfig,
        adapters: AdapterTable,
        stop_token_ids: Sequence[int],
        slots: int,
        capacity: int,
        dtype: Any,
    ):
        self._config, self._adapters = config, adapters
        self._stop = jnp.asarray(sorted(stop_token_ids) or [-1], jnp.int32)
        self._count = min(_CPU_LANES, max(1, slots // _LANE_ROWS)) if jax.default_backend() == "cpu" else 1
        self._rows = -(-slots // self._count)
        self._new = lambda: [new_cache(config, self._rows, capacity, dtype) for _ in range(self._count)]
        self._caches = self._new()
        self._threads = ThreadPoolExecutor(self._count, "lane")
        self._compiled: set[tuple[Any, ...]] = set()
        self.compile_seconds = 0.0

    @property
    def compilations(self) -> int:
        """Distinct shapes run so far."""
        return len(self._compiled)

    def reset(self) -> None:
        """Start with empty caches, after a step that failed half-way."""
        self._caches = self._new()

    def clear(self, slot: int) -> None:
        """Zero a slot's cache."""
        lane, row = slot % self._count, slot // self._count
        self._caches[lane] = clear_slot(self._caches[lane], np.int32(row))

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole slots, (source, target) by (source, target), in order."""
        for source, target in pairs:
            lane, other = target % self._count, source % self._count
            self._caches[lane] = copy_slot(
                self._caches[lane],
                None if lane == other else self._caches[other],
                np.int32(source // self._count),
                np.int32(target // self._count),
            )

    def prefill(self, rows: Sequence[PrefillRow]) -> None:
        """Compute the columns of some tokens of each row's slot.

        Tokens are cut into pieces; pieces of one row may share a call, since a call writes all its columns, layer by
        layer, before it reads them.
        """
        width = steps.PREFILL_WIDTH
        by_lane = self._deal(
            [
                PrefillRow(row.slot, row.start + first, row.tokens[first : first + width], row.adapter)
                for row in rows
                for first in range(0, len(row.tokens), width)
            ]
        )
        while any(by_lane):
            self._run([self._prefill(lane, dealt[: steps.PREFILL_ROWS]) for lane, dealt in enumerate(by_lane) if dealt])
            by_lane = [dealt[steps.PREFILL_ROWS :] for dealt in by_lane]

    def decode(self, rows: Sequence[DecodeRow]) -> dict[int, tuple[list[int], list[float]]]:
        """Sample some tokens in each row's slot; returns the tokens and log-probabilities of every slot."""
        by_lane = self._deal(rows)
        results = iter(self._run([self._decode(lane, dealt) for lane, dealt in enumerate(by_lane) if dealt]))
        sampled = {}
        for dealt in filter(None, by_lane):
            tokens, logprobs, counts = (np.asarray(x) for x in next(results))
            for row in dealt:
                z = row.slot // self._count
                sampled[row.slot] = tokens[z, : counts[z]].tolist(), logprobs[z, : counts[z]].tolist()
        return sampled

    def _deal(self, rows: Sequence[Any]) -> list[list[Any]]:
        return [[row for row in rows if row.slot % self._count == lane] for lane in range(self._count)]

    def _prefill(self, lane: int, rows: list[PrefillRow]) -> "_Call":
        table = np.zeros((steps.PREFILL_ROWS, 4), np.int32)
        tokens = np.zeros((steps.PREFILL_ROWS, steps.PREFILL_WIDTH), np.int32)
        for i, row in enumerate(rows):
            table[i] = row.slot // self._count, row.start, len(row.tokens), row.adapter
            tokens[i, : len(row.tokens)] = row.tokens
        columns = max(row.start + len(row.tokens) for row in rows)
        return self._call("prefill", lane, columns, {row.adapter for row in rows}, table, tokens)

    def _decode(self, lane: int, rows: list[DecodeRow]) -> "_Call":
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
        return self._call("decode", lane, columns, adapters, table, temperature, self._stop, quorum)

    def _call(self, name: str, lane: int, columns: int, adapters: set[int], *arguments: Any) -> "_Call":
        blocks = -(-columns // BLOCK)  # each number of blocks is one compilation
        params, lora = self._adapters.weights(adapters)
        return _Call((name, blocks, lora is not None), lane, blocks, (params, arguments, lora))

    def _run(self, calls: "list[_Call]") -> list[Any]:
        """One call a lane, all at the same time; alone where the shape is new, so that it is compiled but once."""
        results: dict[int, Any] = {}
        for call in calls:
            if call.key not in self._compiled:
                started = time.perf_counter()
                results[call.lane] = self._execute(call)
                seconds = time.perf_counter() - started
                self._compiled.add(call.key)
                self.compile_seconds += seconds
                name, blocks, mixed = call.key
                shape = f"{self._rows} slots, {blocks * BLOCK} columns, {'mixed adapters' if mixed else 'one adapter'}"
                _LOG.debug("compiled %s for %s in %.1f s", name, shape, seconds)
        rest = [call for call in calls if call.lane not in results]
        run: Callable[..., Any] = self._threads.map if len(rest) > 1 else map
        results |= zip((call.lane for call in rest), run(self._execute, rest), strict=True)
        return [results[call.lane] for call in calls]

    def _execute(self, call: "_Call") -> Any:
        params, arguments, lora = call.arguments
        cache = take_blocks(self._caches[call.lane], call.blocks)
        step = steps.prefill if call.key[0] == "prefill" else steps.decode
        result = jax.block_until_ready(step(self._config, params, cache, *arguments, lora))
        head, rest = (result, None) if call.key[0] == "prefill" else (result[0], result[1:])
        self._caches[call.lane] = put_blocks(self._caches[call.lane], head)
        return rest


@dataclass(frozen=True)
class _Call:
    key: tuple[str, int, bool]  # step, blocks, mixed adapters: what decides the compiled program
    lane: int
    blocks: int
    arguments: tuple[steps.Params, tuple[Any, ...], LoRA | None]
