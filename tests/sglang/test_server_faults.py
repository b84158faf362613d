"""Servers die under a run, and come back. ``pytest -s`` prints what the pool says to it."""

import asyncio
import logging
import threading
import time

import pytest
from real_server import CONFIG, RealServer, new_engine, random_lora
from test_sync import listed

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.errors import EngineGone
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import TARGETS
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec
from trace_jax.telemetry.metrics import read_metrics
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.group_source import TrainingEnvironment
from trace_jax.training.job import Job
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train


class Desk:
    """Three turns; the reward is the share of early letters."""

    name = "desk"
    tools = ()

    def reset(self, seed):
        self.answers = []
        return Observation((Message(role="user", content=f"task {seed}"),))

    def step(self, message):
        self.answers.append(message.content or "")
        done = len(self.answers) == 3
        return Observation(() if done else (Message(role="user", content="again"),), done)

    def grade(self):
        text = "".join(self.answers)
        return Outcome(sum(ord(letter) < 90 for letter in text) / max(len(text), 1))


@pytest.fixture(autouse=True)
def shown(caplog):
    caplog.set_level(logging.INFO, "trace_jax")
    started = time.time()
    yield
    for record in caplog.get_records("call"):
        print(f"{record.created - started:7.2f} s  {record.getMessage()}")


def specs(number: int, adapter: str | None = None, seeds: int = 8) -> list[EpisodeSpec]:
    return [
        EpisodeSpec(
            id=f"desk/{i}", host=InProcess(Desk), target="desk", task=str(i % seeds), split="train", seed=i % seeds,
            trial=i // seeds, sampling=Sampling(12, 1.0, i), adapter=adapter,
        )
        for i in range(number)
    ]  # fmt: skip


def play(engine: SGLangEngine, renderer: TinyRenderer, number: int, adapter=None, on_episode=None, seconds=120.0):
    settings = RolloutSettings(max_turns=4, max_episode_tokens=200, max_seconds=seconds, concurrency=16)
    return collect(
        specs(number, adapter),
        engine=engine,
        renderer=renderer,
        settings=settings,
        base="base",
        on_episode=on_episode,
    )


def until_both_serve(engine: SGLangEngine, seconds: float = 60.0) -> None:
    async def wait() -> None:
        end = time.monotonic() + seconds
        while len(engine.serving) < 2:
            assert time.monotonic() < end, engine.serving
            await engine.generate((7, 8), Sampling(1))
            await asyncio.sleep(0.1)

    asyncio.run(wait())


def test_episodes_of_a_killed_server_go_on_elsewhere(server, mortal, renderer, tmp_path, caplog) -> None:
    engine = new_engine(server, mortal)
    for number in (1, 2):
        save_peft(random_lora(number, 4, TARGETS), CONFIG, tmp_path / f"v{number}", "base")
    asyncio.run(engine.load_adapter("v1", tmp_path / "v1"))
    assert set(engine.serving) == {server.url, mortal.url}
    done: list[Trajectory] = []

    def kill(trajectory: Trajectory) -> None:
        done.append(trajectory)
        if len(done) == 12:
            mortal.kill()

    played = play(engine, renderer, 48, "v1", kill)
    assert len(played) == 48 and not [episode.error for episode in played if episode.broken]
    assert engine.serving == (server.url,) and f"{mortal.url} is out" in caplog.text
    asyncio.run(engine.load_adapter("v2", tmp_path / "v2"))  # while it is away
    mortal.start()
    mortal.wait()
    assert not listed(mortal)
    until_both_serve(engine)
    assert sorted(name[:2] for name in listed(mortal)) == ["v1", "v2"]  # before its first request
    assert f"{mortal.url} serves again" in caplog.text
    assert not [episode.error for episode in play(engine, renderer, 48, "v2") if episode.broken]
    asyncio.run(engine.unload_adapter("v1"))
    asyncio.run(engine.unload_adapter("v2"))
    assert not listed(mortal) and not listed(server)


def test_a_server_started_anew_between_two_requests_gets_its_adapters_first(mortal, renderer, tmp_path, caplog) -> None:
    engine = new_engine(mortal)
    save_peft(random_lora(1, 4, TARGETS), CONFIG, tmp_path / "v1", "base")
    asyncio.run(engine.load_adapter("v1", tmp_path / "v1"))
    (before,) = asyncio.run(_greedy(engine, "v1"))
    mortal.kill()
    mortal.start()
    mortal.wait()
    assert engine.serving == (mortal.url,)  # for all that the engine knows
    (after,) = asyncio.run(_greedy(engine, "v1"))
    assert after.token_ids == before.token_ids and "has lost its adapters" in caplog.text
    asyncio.run(engine.unload_adapter("v1"))


async def _greedy(engine: SGLangEngine, adapter: str):
    return [await engine.generate((7, 8, 9), Sampling(8, 0.0), adapter)]


def test_all_gone_and_back_breaks_no_episode(mortal: RealServer, renderer, caplog) -> None:
    """The time without a server does not count: episodes may take five seconds, a start takes longer."""
    engine = new_engine(mortal, wait_seconds=900.0)
    done: list[Trajectory] = []

    def restart(trajectory: Trajectory) -> None:
        done.append(trajectory)
        if len(done) == 4:
            mortal.kill()
            threading.Timer(6.0, mortal.start).start()

    played = play(engine, renderer, 24, None, restart, seconds=5.0 if _quick(mortal) else 60.0)
    assert not [episode.error for episode in played if episode.broken]
    assert "waiting for a server, for" in caplog.text


def _quick(server: RealServer) -> bool:
    started = time.monotonic()
    asyncio.run(new_engine(server).generate((7, 8), Sampling(12)))
    return time.monotonic() - started < 0.5


def test_all_gone_ends_a_training_run_that_goes_on_later(mortal, decoder: Decoder, renderer, tmp_path, caplog) -> None:
    engine, steps = new_engine(mortal, wait_seconds=3.0), []
    settings = GRPOConfig(
        max_steps=4, groups_per_step=3, num_generations=4, rank=4, alpha=4.0, learning_rate=1e-2,
        micro_batch_tokens=600, max_recollections=0,
    )  # fmt: skip

    class Killing(Desk):
        def reset(self, seed):
            if len(steps) == 2:
                mortal.kill()
            return super().reset(seed)

    def run(environment) -> None:
        desk = TrainingEnvironment("desk", InProcess(environment), (1, 2, 3), "desk", "train")
        job = Job(name="skill", directory=tmp_path / "run", environments=[desk], capabilities=("a",))
        train(
            [job], decoder=decoder, engine=engine, renderer=renderer, training=settings,
            rollout=RolloutSettings(max_turns=4, max_turn_tokens=10, max_episode_tokens=200, max_seconds=60.0), seed=3,
            base="base-1", telemetry=TelemetrySettings(tensorboard=False),
            progress=lambda report: steps.append(report.counters.step),
        )  # fmt: skip

    with pytest.raises(EngineGone, match="no server to generate with for .* start the servers again"):
        run(Killing)
    assert steps == [1, 2] and list(read_metrics(tmp_path / "run")) == [1, 2]
    mortal.start()
    mortal.wait()
    run(Desk)
    rows = read_metrics(tmp_path / "run")
    assert steps == [1, 2, 3, 4] and list(rows) == [1, 2, 3, 4]
    assert all(row["sync/bytes"] > 0 and row["time/sync_seconds"] > 0 for row in rows.values())
    assert all(row["rollouts"] == 12 * step for step, row in rows.items())
    assert not listed(mortal) and not (tmp_path / "run" / "published").exists()
