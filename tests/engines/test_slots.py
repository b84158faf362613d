"""Slot assignments against a plain reference: a reused prefix is common, of the right adapter, and still there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_jax.engines.embedded.slots import SlotTable

SLOTS, CAPACITY = 4, 64


def tokens(*parts: list[int]) -> np.ndarray:
    return np.array(sum(parts, []), np.int32)


def serve(slots: SlotTable, prompts: list[np.ndarray], adapters: list[int]) -> list[tuple[int, int, int]]:
    """Assign, compute and release, as the engine does with requests that sample nothing."""
    assigned = slots.assign(prompts, adapters)
    for assignment, prompt in zip(assigned, prompts, strict=True):
        slots.ready[assignment.slot] = len(prompt)
        slots.release(assignment.slot)
    return [(p.slot, p.source, p.reused) for p in assigned]


def test_a_continuation_takes_its_own_slot_before_anyone_else_can() -> None:
    slots, system, rng = SlotTable(SLOTS, CAPACITY), [7] * 20, np.random.default_rng()
    talks = [system + rng.integers(10, 99, 5).tolist() for _ in range(SLOTS)]
    where = [slot for slot, *_ in serve(slots, [tokens(talk) for talk in talks], [0] * SLOTS)]
    newcomer = tokens(system, [1, 2, 3])
    prompts = [newcomer, *(tokens(talks[i], [5, 5]) for i in (2, 0, 3))]
    assigned = serve(slots, prompts, [0] * 4)
    assert assigned[1:] == [(where[i], where[i], 25) for i in (2, 0, 3)]
    assert assigned[0] == (where[1], where[1], 20)  # the one that nobody continues, whose beginning serves


def test_the_least_recently_used_slot_gives_way() -> None:
    slots = SlotTable(SLOTS, CAPACITY)
    order = [serve(slots, [tokens([i] * 30)], [0])[0][0] for i in range(SLOTS)]
    assert order == list(range(SLOTS))
    assert serve(slots, [tokens([0] * 31)], [0]) == [(0, 0, 30)]
    assert serve(slots, [tokens([9] * 30)], [0]) == [(1, 1, 0)]


def test_forgotten_slots_and_other_adapters_offer_nothing() -> None:
    slots = SlotTable(SLOTS, CAPACITY)
    serve(slots, [tokens([1] * 30)], [0])
    assert serve(slots, [tokens([1] * 30)], [1])[0][2] == 0
    slots.forget_adapter(0)
    assert serve(slots, [tokens([1] * 30)], [0])[0][2] == 0
    assert serve(slots, [tokens([1] * 30)], [1])[0][2] == 30


requests = st.lists(
    st.tuples(st.lists(st.sampled_from([1, 2]), max_size=4), st.integers(0, 1)), min_size=1, max_size=SLOTS
)


@settings(max_examples=200, deadline=None)
@given(rounds=st.lists(requests, min_size=1, max_size=5))
def test_what_is_reused_is_really_there(rounds: list[list[tuple[list[int], int]]]) -> None:
    """Replays copies and writes in the engine's order on a cache of (token, adapter); compares with the prompts."""
    slots = SlotTable(SLOTS, CAPACITY)
    cache = np.zeros((SLOTS, CAPACITY, 2), np.int32)
    for drawn in rounds:
        prompts = [np.repeat(np.array(words, np.int32), 12) for words, _ in drawn]  # long enough to be worth copying
        adapters = [adapter for _, adapter in drawn]
        assigned = slots.assign(prompts, adapters)
        assert len({p.slot for p in assigned}) == len(assigned)
        waiting = []
        for p in assigned:
            if p.source != p.slot and slots.ready[p.slot] == p.reused:
                cache[p.slot] = cache[p.source]
            elif p.source != p.slot:
                waiting.append(p)
        todo = list(zip(assigned, prompts, adapters, strict=True))
        while todo:
            for p, prompt, adapter in [item for item in todo if item[0] not in waiting]:
                assert (cache[p.slot, : p.reused, 0] == prompt[: p.reused]).all()
                assert (cache[p.slot, : p.reused, 1] == adapter).all()
                cache[p.slot, p.reused : len(prompt), 0] = prompt[p.reused :]
                cache[p.slot, p.reused : len(prompt), 1] = adapter
                slots.ready[p.slot] = len(prompt)
            todo = [item for item in todo if item[0] in waiting]
            copied = [p for p in waiting if slots.ready[p.source] >= p.reused]
            assert copied or not waiting
            for p in copied:
                cache[p.slot] = cache[p.source]
            waiting = [p for p in waiting if p not in copied]
        for p in assigned:
            slots.release(p.slot)
