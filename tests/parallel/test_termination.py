"""SIGTERM: noted, or the end of a block that may be interrupted."""

import asyncio
import os
import signal

import pytest

from trace_jax.parallel.termination import Terminated, Termination


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_is_noted_and_ends_the_next_interruptible_block():
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        assert not termination.requested
        terminate()
        assert termination.requested
        with pytest.raises(Terminated), termination.interruptible():
            raise AssertionError("not entered")
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_ends_an_interruptible_block_at_once_and_only_once():
    cleaned = []

    async def play():
        try:
            await asyncio.sleep(0)
            terminate()
            await asyncio.sleep(60)
        finally:
            terminate()  # a second signal does not disturb what cleans up
            cleaned.append(True)

    with Termination() as termination:
        with pytest.raises(Terminated), termination.interruptible():
            asyncio.run(play())
        terminate()  # after the block: noted
    assert cleaned == [True] and Terminated.status == 143
