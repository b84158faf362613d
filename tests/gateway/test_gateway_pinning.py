"""Pins are bounded in number and in time, and one decision is made for all who wait for it."""

import asyncio

import pytest

from trace_jax.contract.routing import RouteDecision
from trace_jax.gateway.pinning import Pins


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Decide:
    """Counts what it decides."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, key: str):
        async def decide() -> RouteDecision:
            self.keys.append(key)
            await asyncio.sleep(0)
            return RouteDecision(conversation=key, router="gate", weights={}, adapters={})

        return decide


def test_the_least_recently_used_goes_first():
    async def use() -> list[str]:
        pins, decide = Pins(2, 100.0), Decide()
        for key in "abacab":
            assert (await pins.get(key, decide(key))).conversation == key
            assert len(pins) <= 2
        return decide.keys

    assert asyncio.run(use()) == ["a", "b", "c", "b"]


def test_unused_ones_are_forgotten_and_used_ones_are_not():
    async def use() -> list[str]:
        clock, decide = Clock(), Decide()
        pins = Pins(10, 60.0, clock)
        for time, key in [(0, "a"), (0, "b"), (50, "a"), (100, "a"), (100, "b"), (161, "a")]:
            clock.now = time
            await pins.get(key, decide(key))
        assert len(pins) == 1
        return decide.keys

    assert asyncio.run(use()) == ["a", "b", "b", "a"]


def test_all_wait_for_one_decision_whoever_leaves():
    async def use() -> None:
        pins, decide = Pins(10, 60.0), Decide()
        first, *others = [asyncio.ensure_future(pins.get("a", decide("a"))) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert len({id(decision) for decision in await asyncio.gather(*others)}) == 1
        assert decide.keys == ["a"]

    asyncio.run(use())


def test_a_decision_that_fails_is_made_again():
    async def fail() -> RouteDecision:
        raise OSError("once")

    async def use() -> None:
        pins, decide = Pins(10, 60.0), Decide()
        with pytest.raises(OSError, match="once"):
            await pins.get("a", fail)
        assert (await pins.get("a", decide("a"))).conversation == "a"
        left = asyncio.ensure_future(pins.get("b", fail))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0.01)
        assert (await pins.get("b", decide("b"))).conversation == "b"

    asyncio.run(use())


def test_a_decision_that_fails_late_takes_no_newer_one_with_it():
    async def use() -> None:
        pins, decide, late = Pins(1, 60.0), Decide(), asyncio.Event()

        async def fail() -> RouteDecision:
            await late.wait()
            raise OSError("late")

        first = asyncio.ensure_future(pins.get("a", fail))
        await asyncio.sleep(0)
        for key in "ba":  # the first one has to make room
            await pins.get(key, decide(key))
        late.set()
        with pytest.raises(OSError, match="late"):
            await first
        await pins.get("a", decide("a"))
        assert decide.keys == ["b", "a"]

    asyncio.run(use())
