"""Episodes that go on while the caller works: when they advance, and what they leave behind."""

import asyncio
import gc
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from test_agent_loop import ROLLOUT, Counter, spec

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.errors import EngineError
from trace_jax.parallel.termination import Terminated, Termination
from trace_jax.rollout.player import Player, collect
from trace_jax.rollout.settings import RolloutSettings


@pytest.fixture
def engine(decoder, config, renderer) -> EmbeddedEngine:
    return EmbeddedEngine(
        decoder, config, renderer.stop_token_ids, EngineSettings(slots=6, capacity=256), max_rank=4, max_adapters=3
    )


def settings(concurrency: int) -> RolloutSettings:
    return replace(ROLLOUT, concurrency=concurrency)


def new_player(engine, renderer, concurrency: int = 64, termination: Termination | None = None) -> Player:
    return Player(
        engine=engine, renderer=renderer, settings=settings(concurrency), base="base0", termination=termination
    )


def test_episodes_are_those_of_collect_whatever_happens_meanwhile(engine, renderer) -> None:
    specs = [spec(i) for i in range(10)]
    expected = collect(specs, engine=engine, renderer=renderer, settings=settings(4), base="base0")
    engine.flush()
    threads = []
    with new_player(engine, renderer, 4) as player:
        episodes = player.start(specs)
        while not all(episode.done() for episode in episodes):
            threads.append(player.run_in_thread(lambda: time.sleep(0.01) or threading.current_thread()))
        found = [episode.result() for episode in episodes]
    assert [t.replace(seconds=0.0) for t in found] == [t.replace(seconds=0.0) for t in expected]
    assert threading.main_thread() not in threads


def test_between_calls_nothing_moves_and_no_more_than_concurrency_play(engine, renderer) -> None:
    Counter.open_now = Counter.most_open = 0
    with new_player(engine, renderer, 3) as player:
        episodes = player.start([spec(i) for i in range(8)])
        asked = engine.stats.decode_tokens
        time.sleep(0.05)
        assert Counter.most_open == 0 and engine.stats.decode_tokens == asked
        player.wait(lambda: asyncio.wait(episodes))
    assert Counter.most_open == 3 and Counter.open_now == 0


def test_a_source_is_asked_at_every_turn_and_segments_tell_the_answer(engine, renderer, adapters) -> None:
    for name in ("a", "b"):
        engine.set_adapter(name, adapters[name])
    answers = iter(["a", "a", "b", None])  # once for the policy, then three turns
    changing = spec(1, adapter=lambda: next(answers), sampling=Sampling(8, 1.0, 1))
    (episode,) = collect([changing], engine=engine, renderer=renderer, settings=ROLLOUT, base="base0")
    assert [segment.adapter for segment in episode.segments if segment.trained] == ["a", "b", None]
    assert episode.policy.adapter == "a" and not episode.broken
    tokens: tuple[int, ...] = ()
    for turn in range(3):
        rendered, sampled = episode.segments[2 * turn : 2 * turn + 2]
        tokens += rendered.tokens
        engine.flush()
        sampling = Sampling(8, 1.0, 0)
        alone = [asyncio.run(engine.generate(tokens, sampling, name)) for name in (sampled.adapter, "a")]
        assert turn == 0 or alone[0] != alone[1]
        tokens += sampled.tokens


def test_a_cancelled_episode_frees_its_slot_and_its_adapter(engine, renderer, adapters) -> None:
    engine.set_adapter("a", adapters["a"])
    engine.set_adapter("b", adapters["b"])
    with new_player(engine, renderer, 4) as player:
        cancelled = player.start([spec(i, adapter="a") for i in range(4)])
        others = player.start([spec(i, adapter="b") for i in range(4, 8)])
        player.run(asyncio.sleep(0))  # all have asked
        with pytest.raises(EngineError, match="'a' serves requests"):
            player.run(engine.unload_adapter("a"))
        player.cancel(cancelled)
        player.run(engine.unload_adapter("a"))
        player.wait(lambda: asyncio.wait(others))
        assert all(episode.cancelled() for episode in cancelled)
        assert not any(episode.result().broken for episode in others)


def test_the_end_ends_what_is_in_flight_and_waits_for_the_thread(engine, renderer) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), new_player(engine, renderer) as player:
        episodes = player.start([spec(i) for i in range(6)])
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        player.run_in_thread(lambda: time.sleep(0.5) or done.append(True))
    assert done == [True] and all(episode.done() for episode in episodes)
    assert (
        len(collect([spec(1)], engine=engine, renderer=renderer, settings=ROLLOUT, base="base0")) == 1
    )  # the engine is as good as new


def test_sigterm_ends_a_wait_and_not_the_thread(engine, renderer) -> None:
    with Termination() as termination, new_player(engine, renderer, 4, termination) as player:
        episodes = player.start([spec(i) for i in range(6)])
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        assert player.run_in_thread(lambda: time.sleep(0.3) or "whole") == "whole"
        with pytest.raises(Terminated):
            player.wait(lambda: asyncio.wait(episodes))


class Interrupted:
    """An engine whose third answer is cut short by a signal."""

    def __init__(self, engine) -> None:
        self._engine, self._left = engine, 3

    async def generate(self, *arguments, **settings):
        completion = await self._engine.generate(*arguments, **settings)
        self._left -= 1
        if self._left == 0:
            raise Terminated  # as the handler of a signal, which runs between two instructions of an episode
        return completion


def test_an_interruption_within_an_episode_is_raised_once(engine, renderer, caplog) -> None:
    gc.collect()  # of earlier tests
    caplog.clear()
    with pytest.raises(Terminated) as error, new_player(Interrupted(engine), renderer, 4) as player:
        episodes = player.start([spec(i) for i in range(6)])

        async def waited() -> None:
            await asyncio.wait(episodes, return_when=asyncio.FIRST_EXCEPTION)
            for episode in episodes:
                episode.result()

        try:
            player.run(waited())
        finally:
            player.cancel(episodes)  # cleans up without being interrupted again
    assert error.value.__context__ is None and all(episode.done() for episode in episodes)
    with pytest.raises(Terminated):
        collect(
            [spec(i) for i in range(6)], engine=Interrupted(engine), renderer=renderer, settings=settings(4), base=""
        )
    episodes.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text
