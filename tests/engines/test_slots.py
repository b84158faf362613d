"""Placements against a plain reference: what is reused is a common prefix, of the right adapter, still there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_jax.engines.embedded.slots import Slots

SLOTS, CAPACITY = 4, 64


def tokens(*parts: list[int]) -> np.ndarray:
    return np.array(sum(parts, []), np.int32)


def serve(slots: Slots, prompts: list[np.ndarray], adapters: list[int]) -> list[tuple[int, int, int]]:
    """Place, compute and release, as the engine does with requests that sample nothing."""
    placed = slots.place(prompts, adapters)
    for placement, prompt in zip(placed, prompts, strict=True):
        slots.ready[placement.slot] = len(prompt)
        slots.release(placement.slot)
    return [(p.slot, p.source, p.reused) for p in placed]


def test_a_continuation_takes_its_own_slot_before_anyone_else_can() -> None:
    slots, system, rng = Slots(SLOTS, CAPACITY), [7] * 20, np.random.default_rng()
    talks = [system + rng.integers(10, 99, 5).tolist() for _ in range(SLOTS)]
    where = [slot for slot, *_ in serve(slots, [tokens(talk) for talk in talks], [0] * SLOTS)]
    newcomer = tokens(system, [1, 2, 3])
    asked = [newcomer, *(tokens(talks[i], [5, 5]) for i in (2, 0, 3))]
    placed = serve(slots, asked, [0] * 4)
    assert placed[1:] == [(where[i], where[i], 25) for i in (2, 0, 3)]
    assert placed[0] == (where[1], where[1], 20)  # the one that nobody continues, whose beginning serves


def test_the_least_recently_used_slot_gives_way() -> None:
    slots = Slots(SLOTS, CAPACITY)
    order = [serve(slots, [tokens([i] * 30)], [0])[0][0] for i in range(SLOTS)]
    assert order == list(range(SLOTS))
    assert serve(slots, [tokens([0] * 31)], [0]) == [(0, 0, 30)]
    assert serve(slots, [tokens([9] * 30)], [0]) == [(1, 1, 0)]


def test_forgotten_slots_and_other_adapters_offer_nothing() -> None:
    slots = Slots(SLOTS, CAPACITY)
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
    slots = Slots(SLOTS, CAPACITY)
    cache = np.zeros((SLOTS, CAPACITY, 2), np.int32)
    for asked in rounds:
        prompts = [np.repeat(np.array(pieces, np.int32), 12) for pieces, _ in asked]  # long enough to be worth copying
        adapters = [adapter for _, adapter in asked]
        placed = slots.place(prompts, adapters)
        assert len({p.slot for p in placed}) == len(placed)
        waiting = []
        for p in placed:
            if p.source != p.slot and slots.ready[p.slot] == p.reused:
                cache[p.slot] = cache[p.source]
            elif p.source != p.slot:
                waiting.append(p)
        todo = list(zip(placed, prompts, adapters, strict=True))
        while todo:
            for p, prompt, adapter in [item for item in todo if item[0] not in waiting]:
                assert (cache[p.slot, : p.reused, 0] == prompt[: p.reused]).all()
                assert (cache[p.slot, : p.reused, 1] == adapter).all()
                cache[p.slot, p.reused : len(prompt), 0] = prompt[p.reused :]
                cache[p.slot, p.reused : len(prompt), 1] = adapter
                slots.ready[p.slot] = len(prompt)
            todo = [item for item in todo if item[0] in waiting]
            can = [p for p in waiting if slots.ready[p.source] >= p.reused]
            assert can or not waiting
            for p in can:
                cache[p.slot] = cache[p.source]
            waiting = [p for p in waiting if p not in can]
        for p in placed:
            slots.release(p.slot)
