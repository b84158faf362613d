"""Which conversation is in which cache slot, and which slot has the longest prefix of a new prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WORTH_COPYING = 16  # tokens; a shorter common prefix is computed faster than it is copied


@dataclass(frozen=True)
class SlotAssignment:
    """A request's slot. Its first ``reused`` columns come from ``source``: another slot, or the slot itself."""

    slot: int
    source: int
    reused: int


class SlotTable:
    """The tokens of every cache slot, on the host. They are kept after a request ends, for its next turn.

    ``ready[z]`` is the number of leading tokens of slot z whose keys and values are in the cache.
    """

    def __init__(self, slots: int, capacity: int):
        self.tokens = np.zeros((slots, capacity), np.int32)
        self.ready = np.zeros(slots, np.int32)
        self._length = np.zeros(slots, np.int32)
        self._adapter = np.full(slots, -1, np.int32)
        self._busy = np.zeros(slots, bool)
        self._used = np.zeros(slots, np.int64)
        self._clock = 0

    @property
    def free(self) -> int:
        """Slots without a running request."""
        return int((~self._busy).sum())

    def assign(self, prompts: Sequence[np.ndarray], adapters: Sequence[int]) -> list[SlotAssignment]:
        """A slot for each prompt (int32, without its last token); there are at most ``free`` prompts.

        A request that continues the conversation of a free slot takes that slot. Then the other requests, in order,
        take the least recently used slot, and the longest prefix that any slot with the same adapter has or will have.
        """
        assigned: dict[int, SlotAssignment] = {}
        for i, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True)):
            shared = self._shared(prompt, adapter)
            continued = np.flatnonzero((shared == self._length) & (shared > 0) & ~self._busy)
            if continued.size:
                slot = int(continued[np.argmax(shared[continued])])
                assigned[i] = self._claim(slot, slot, int(shared[slot]), prompt, adapter)
        for i, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True)):
            if i in assigned:
                continue
            age = np.where(self._length > 0, self._used, -1)
            slot = int(np.argmin(np.where(self._busy, np.iinfo(np.int64).max, age)))
            shared = self._shared(prompt, adapter)
            source = int(np.argmax(2 * shared + (self.ready >= shared)))  # of equal prefixes, one that is computed
            if shared[source] < _WORTH_COPYING or shared[slot] >= shared[source]:
                source = slot
            assigned[i] = self._claim(slot, source, int(shared[source]), prompt, adapter)
        return [assigned[i] for i in range(len(prompts))]

    def append(self, slot: int, tokens: Sequence[int]) -> None:
        """Note tokens whose keys and values have been written after the ready ones."""
        start = int(self.ready[slot])
        self.tokens[slot, start : start + len(tokens)] = tokens
        self.ready[slot] = self._length[slot] = start + len(tokens)

    def release(self, slot: int) -> None:
        """The request has ended; the slot keeps what is ready until another request needs it."""
        self._busy[slot] = False
        self._length[slot] = self.ready[slot]

    def forget(self, slot: int) -> None:
        """Drop the tokens of a slot."""
        self._length[slot] = self.ready[slot] = 0

    def forget_adapter(self, adapter: int) -> None:
        """Drop the tokens of all slots that were computed with an adapter."""
        for slot in np.flatnonzero(self._adapter == adapter):
            self.forget(int(slot))

    def _shared(self, prompt: np.ndarray, adapter: int) -> np.ndarray:
        """Length of the common prefix with each slot's tokens, int32 ``[Z]``; 0 where the adapter differs."""
        n = len(prompt)
        differs = np.ones((len(self.ready), n + 1), bool)
        np.not_equal(self.tokens[:, :n], prompt, out=differs[:, :n])
        shared = np.minimum(np.argmax(differs, axis=1), self._length)
        return np.where(self._adapter == adapter, shared, 0).astype(np.int32)

    def _claim(self, slot: int, source: int, reused: int, prompt: np.ndarray, adapter: int) -> SlotAssignment:
        self._clock += 1
        self._used[slot], self._busy[slot], self._adapter[slot] = self._clock, True, adapter
        self.tokens[slot, : len(prompt)] = prompt
        self._length[slot] = len(prompt)
        if source == slot:
            self.ready[slot] = reused
        elif self.ready[source] >= reused:
            self.ready[slot] = reused  # the engine copies before it writes anything else
        else:
            self.ready[slot] = 0
        return SlotAssignment(slot, source, reused)
