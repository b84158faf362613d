"""Claims: a wrong answer of a sandboxed process breaks the episode, and a lock that does not hold is none."""

import asyncio
import os

import pytest

from trace_jax.contract.trajectory import Message
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.sandbox import lock
from trace_jax.sandbox.episode import SandboxEpisode

OPENING = {"messages": [{"role": "user", "content": "hello"}], "done": False}
OUTCOME = {"reward": 0.5, "components": {}, "checks": [], "extra": {}}
USER = [{"role": "user", "content": "hello"}]
deep: list = []
for _ in range(100_000):
    deep = [deep]


class Worker:
    """Gives every request one answer."""

    def __init__(self, answer):
        self.answer = answer

    async def request(self, number, operation, argument="null"):
        return self.answer


def told(operation, answer):
    episode = SandboxEpisode(None, Worker(answer), 1, "desk", ())
    arguments = {"reset": (1,), "step": (Message(role="assistant", content="x"),), "mutant": (1,), "prompts": (1,)}
    return asyncio.run(getattr(episode, operation)(*arguments.get(operation, ())))


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("reset", OPENING), ("step", OPENING), ("grade", OUTCOME), ("state", {"x": [1.5, None]}), ("solution", USER),
        ("hint", "é"), ("mutant", None), ("mutant", OPENING), ("prompts", [USER, USER, []]),
    ],
)  # fmt: skip
def test_an_answer_is_taken(operation, answer):
    assert told(operation, answer) is not None or answer is None


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("reset", None), ("reset", OPENING | {"done": "no"}), ("reset", OPENING | {"messages": [3]}),
        ("reset", OPENING | {"tools": 3}), ("reset", OPENING | {"tools": ["x" * 70_000]}),
        ("step", []), ("step", OPENING | {"messages": None}),
        ("grade", None), ("grade", OUTCOME | {"reward": True}), ("grade", OUTCOME | {"reward": 1.5}),
        ("grade", OUTCOME | {"reward": "1"}), ("grade", OUTCOME | {"reward": float("nan")}),
        ("grade", OUTCOME | {"extra": {"cost": 0}}), ("grade", OUTCOME | {"checks": [{"name": 3}]}),
        ("state", []), ("state", None), ("state", {"x": float("nan")}), ("state", {"x": deep}),
        ("solution", {}), ("solution", ["x"]), ("solution", [{"role": "judge", "content": "1"}]),
        ("hint", None), ("hint", 3), ("hint", "\ud800"),
        ("mutant", 3), ("mutant", {}),
        ("prompts", None), ("prompts", [USER, USER]), ("prompts", "abc"), ("prompts", [USER, USER, 3]),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_breaks_the_episode(operation, answer):
    with pytest.raises(EnvironmentFault) as raised:
        told(operation, answer)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_a_lock_whose_filter_lets_calls_through_is_no_lock(monkeypatch):
    for step in ("_give_up_rights", "_limit", "_filter", "restrict", "_call"):
        monkeypatch.setattr(lock, step, lambda *_: None)
    with pytest.raises(OSError, match="the filter of system calls was installed, and does not hold"):
        lock.lock(256, os.getppid())
