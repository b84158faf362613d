"""Claims: a weaker policy must earn less, the hint must help, and a hint reaches the system message."""

import asyncio

import pytest

from trace_jax.contract.trajectory import Message, Policy, Trajectory
from trace_jax.environments.episode_clock import episode_clock
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.hinted import HintedHost, with_hint
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation
from trace_jax.synthesis.differential import differential


def groups(*rewards):
    """A group for each seed from 0, in which every rollout earned so much."""
    return [
        [
            Trajectory(
                id=f"{seed}-{trial}", target="t", task=str(seed), split="train", seed=seed, trial=trial,
                policy=Policy(base="b"), messages=(), reward=reward, error=None if reward is not None else "gone",
                termination="done" if reward is not None else "error",
            )
            for trial in range(2)
        ]
        for seed, reward in enumerate(rewards)
    ]  # fmt: skip


def failed(base, weaker, hinted=None):
    checks = differential(groups(*base), groups(*weaker), None if hinted is None else groups(*hinted))
    return {check.name: check.detail for check in checks if not check.passed}


def test_the_base_between_a_weaker_policy_and_itself_with_a_hint_passes():
    assert failed((0.5, 0.4, 0.6), (0.2, 0.4, 0.3), (0.7, 0.6, 0.6)) == {}


def test_a_weaker_policy_that_earns_as_much_is_refused_with_the_seed():
    found = failed((0.5, 0.4, 0.6), (0.5, 0.6, 0.4))
    assert "+0.000" in found["weaker_earns_less"] and "on seed 1 0.600 in place of 0.400" in found["weaker_earns_less"]


def test_a_hint_that_harms_is_refused_and_one_that_does_nothing_is_not():
    assert failed((0.5, 0.4, 0.6), (0.1, 0.1, 0.1), (0.5, 0.3, 0.7)) == {}
    found = failed((0.5, 0.4, 0.6), (0.1, 0.1, 0.1), (0.2, 0.1, 0.2))
    assert found["hint_helps"].startswith("with the hint the base earns -0.333 ± ")
    assert found["hint_helps"].endswith("on seed 0 0.500 in place of 0.200")


def test_broken_rollouts_are_left_out_and_nothing_but_broken_ones_pass_no_check():
    assert failed((0.5, None), (0.2, None), (0.6, None)) == {}
    assert set(failed((0.5, 0.4), (None, None), (None, None))) == {"weaker_earns_less", "hint_helps"}


class Hintless:
    """Opens an episode, and has no hint."""

    name, tools = "desk", ()

    def reset(self, seed):
        self.seed = seed
        return Observation((Message(role="system", content="Policy."), Message(role="user", content="Hello.")))


class Desk(Hintless):
    def hint(self):
        return f"Think of {self.seed}."


def opening(environment):
    async def opened():
        episode = await HintedHost(InProcess(environment)).open()
        async with episode_clock(5.0):
            return (await episode.reset(4)).messages

    return asyncio.run(opened())


def test_a_hinted_episode_has_the_hint_in_its_system_message():
    assert [message.content for message in opening(Desk)] == ["Policy.\nThink of 4.", "Hello."]
    assert with_hint((Message(role="user", content="Hi"),), "Look.")[0] == Message(role="system", content="Look.")


def test_an_environment_without_a_hint_breaks_the_episode():
    with pytest.raises(EnvironmentFault, match="Hintless has no hint"):
        opening(Hintless)
