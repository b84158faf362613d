"""Claims: a benchmark is played in worker processes of its own Python as in one process, and quickly."""

import asyncio
import time

import pytest
from foreign import conformance, python_of

from trace_jax.contract.trajectory import Message
from trace_jax.environments.host import host_of
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.settings import TargetSettings


@pytest.fixture(params=["bfcl", "agentdojo"])
def name(request):
    return request.param


def target_of(name, workers=2):
    return open_target(TargetSettings(environment=name, workers=workers, python=python_of(name)))


async def rewards(target, solutions):
    """The reward of every solution, 64 episodes at once."""
    room = asyncio.Semaphore(64)

    async def replay(task, script):
        async with room:
            episode = await host_of(target, "train").open()
            observation = await episode.reset(task)
            for message in script:
                assert not observation.done
                observation = await episode.step(Message.model_validate(message, strict=False))
            assert observation.done
            grade = await episode.grade()
            await episode.close()
            return grade.reward

    return await asyncio.gather(*[replay(task, script) for task, script in solutions.items()])


def test_every_solution_passes_in_workers(name):
    target = target_of(name)
    [solutions] = conformance(name, "solutions")
    assert {*target.tasks("train"), *target.tasks("held_out")} == {*solutions["scripts"]}
    assert set(asyncio.run(rewards(target, solutions["scripts"]))) == {1.0}
    assert target.version.startswith(f"{'bfcl-eval' if name == 'bfcl' else name} ")
    target.close()


def test_an_episode_offers_the_tools_of_its_task():
    target = target_of("bfcl", workers=1)
    environment = target.environment("train")
    assert len(environment.tools) == 128
    environment.reset("multi_turn_base_0")
    assert len(environment.tools) == 32
    assert {"grep", "post_tweet"} < {tool.name for tool in environment.tools}
    target.close()


@pytest.mark.slow  # needs a quiet machine of two cores
def test_the_800_solutions_of_bfcl_take_twenty_seconds_at_most():
    [solutions] = conformance("bfcl", "solutions")
    target, started = target_of("bfcl"), time.monotonic()
    assert set(asyncio.run(rewards(target, solutions["scripts"]))) == {1.0}
    assert time.monotonic() - started < 20
    target.close()
