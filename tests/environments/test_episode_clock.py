"""An episode's clock, and what stops it."""

import asyncio
import time

import pytest

from trace_jax.environments.episode_clock import episode_clock, off_the_clock


def test_a_wait_off_the_clock_takes_nothing_from_the_episode() -> None:
    async def episode() -> float:
        async with episode_clock(0.4) as clock:
            await asyncio.sleep(0.1)
            with off_the_clock():
                assert clock.when() is None
                await asyncio.sleep(0.6)
            end = clock.when()
            assert end is not None
            return end - asyncio.get_running_loop().time()

    assert asyncio.run(episode()) == pytest.approx(0.3, abs=0.05)


def test_it_runs_again_afterwards() -> None:
    async def episode() -> None:
        async with episode_clock(0.2):
            with off_the_clock():
                await asyncio.sleep(0.3)
            await asyncio.sleep(5.0)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(episode())
    assert 0.45 < time.monotonic() - started < 2.0


def test_episodes_have_their_own_clocks() -> None:
    async def waits() -> str:
        async with episode_clock(0.1):
            with off_the_clock():
                await asyncio.sleep(0.3)
        return "waited"

    async def works() -> None:
        async with episode_clock(0.1):
            await asyncio.sleep(0.3)

    async def both() -> list[object]:
        return await asyncio.gather(waits(), works(), return_exceptions=True)

    waited, error = asyncio.run(both())
    assert waited == "waited" and isinstance(error, TimeoutError)


def test_without_an_episode_it_is_nothing() -> None:
    async def wait() -> None:
        with off_the_clock(), off_the_clock():
            await asyncio.sleep(0)

    asyncio.run(wait())
