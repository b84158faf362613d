"""An agent behind the gateway fails some of its conversations, and these are the next analysis' input."""

import json
import os
from pathlib import Path

import pytest
from programs import run_program
from served import ByWord, make_app, make_gateway, serving
from tokenizers import Tokenizer

from configs import quickstart
from trace_jax.contract.files import read_records
from trace_jax.contract.same_message import same_text
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.gateway.embedded import EmbeddedBackend
from trace_jax.gateway.engine import EngineThread
from trace_jax.run_settings import read_settings
from trace_jax.session import load_base

ROOT = Path(__file__).parents[2]
TASKS = 24


def program(name: str, *flags: str) -> str:
    done = run_program(f"launch.{name}", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what an agent played by the gateway's endpoint, and with the gateway's own record of it."""
    directory = tmp_path_factory.mktemp("served")
    settings = read_settings(quickstart.get_config())
    base = load_base(settings)
    engine = EmbeddedEngine(base.decoder, base.config, base.renderer.stop_token_ids, settings.engine)
    tokenizer = Tokenizer.from_file(os.fspath(ROOT / settings.base.path / "tokenizer.json"))

    async def make(stack):
        thread = stack.enter_context(EngineThread(engine))
        room = {"capacity": settings.engine.capacity, "max_rank": 1}
        backend = EmbeddedBackend("tiny", thread, base.renderer, tokenizer, forms={}, **room)
        router = ByWord(())
        return make_app(await make_gateway(stack, backend, router, {}, base.config, directory, record_bytes=1 << 20))

    with serving(make) as url:
        sizes = (f"--config.target.train_tasks={TASKS}", "--config.rollout.trials=1")
        engine_flags = ("--config.engine.kind=chat", f"--config.engine.url={url}/v1", "--config.engine.model=tiny")
        flags = ("--config=configs/quickstart.py", f"--workdir={directory / 'run'}", *sizes, *engine_flags)
        print(program("rollout", *flags))
    return directory


def analysed(source: Path, workdir: Path) -> str:
    flags = (f"--config.source.path={source}", f"--workdir={workdir}", "--config.analysis.runs=3")
    return program("analyze", "--config=configs/base.py", *flags)


def test_what_an_agent_failed_is_recorded_judged_and_analysed(recorded: Path, tmp_path: Path) -> None:
    played = {episode.id: episode for episode in read_records(recorded / "run" / "trajectories.jsonl", Trajectory)}
    assert len(played) == TASKS and not any(episode.broken for episode in played.values())
    assert {episode.passed for episode in played.values()} == {True, False}

    rewards = tmp_path / "rewards.jsonl"  # as a business knows them later
    rewards.write_text("".join(json.dumps({"conversation": e.id, "reward": e.reward}) + "\n" for e in played.values()))
    out = tmp_path / "trajectories.jsonl"
    paths = (f"--conversations={recorded / 'conversations.jsonl'}", f"--rewards={rewards}", f"--out={out}")
    assert f"{TASKS} trajectories, " in program("label_rewards", *paths)

    for judged in read_records(out, Trajectory):
        episode = played[judged.id]
        told = [same_text(message) for message in judged.messages]
        said = [same_text(message) for message in episode.messages]
        assert said[: len(told)] == told and "assistant" not in {m.role for m in episode.messages[len(told) :]}
        assert (judged.reward, judged.tools) == (episode.reward, episode.tools)
        assert judged.policy.base == "base-revision" and judged.usage == episode.usage

    ours, theirs = analysed(out, tmp_path / "a"), analysed(recorded / "run" / "trajectories.jsonl", tmp_path / "b")
    failed = sum(not episode.passed for episode in played.values())
    counts = f"{TASKS - failed} passed, {failed} failed, 0 broken."
    assert counts in ours and counts in theirs
    assert "| verify_before_acting |" in ours
