"""Detectors take whatever an episode holds: endless words, numbers that no float holds, deep results, silence."""

import time

import pytest

from trace_jax.analysis.compact import compact
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.episode import read_episode, read_episodes
from trace_jax.contract.trajectory import Message, Policy, ToolCall, Trajectory

LONG = 20_000  # characters; what takes quadratic time takes seconds
TEXTS = {
    "a word": "x" * LONG,
    "words": "x " * (LONG // 2),
    "digits": "1" * LONG,
    "identifiers": "X1" * (LONG // 2),
    "dashes": "-" * LONG,
    "spaces": " " * LONG,
    "rules": "cancel only " * (LONG // 12),
    "permissions": "x can be " * (LONG // 9),
    "claims": "it has been cancelled " * (LONG // 22),
    "requests": "update a b c and add " * (LONG // 21),
    "records": "[" + ",".join(f'{{"id": "O{i}", "price": {i}}}' for i in range(LONG // 25)) + "]",
    "deep": '{"price":' * 3000 + "1" + "}" * 3000,
    "huge numbers": '{"name": "mug", "price": 1'
    + "0" * 400
    + ', "lamp": 1e999, "rug": NaN, "age": -1'
    + "0" * 5000
    + "}",
    "a window": "Orders can be cancelled within " + "9" * 30 + " hours. The current time is 2024-05-15 15:00:00.",
    "half a pair": "\ud83d" * 10,
}


def conversation(policy: str, request: str, reply: str, result: str, argument: object) -> Trajectory:
    """An agent reads an order and cancels it."""
    read = ToolCall(id="1", name="get_order", arguments={"order_id": "O1"})
    write = ToolCall(id="2", name="cancel_order", arguments={"order_id": "O1", "amount": argument})
    return Trajectory(
        id="t",
        target="t",
        task="1",
        split="train",
        seed=0,
        trial=0,
        policy=Policy(base="b"),
        messages=(
            Message(role="system", content=f"Orders that are sent cannot be cancelled. {policy}"),
            Message(
                role="user",
                content=f"Cancel the cheapest, I forgot its id; what is the total of mug and lamp? {request}",
            ),
            Message(role="assistant", content=reply, tool_calls=(read,)),
            Message(role="tool", tool_call_id="1", content=result),
            Message(role="assistant", tool_calls=(write,)),
            Message(role="tool", tool_call_id="2", content="Error: total price does not add up"),
            Message(role="assistant", content=f"It has been cancelled, I cannot cancel more. {reply}"),
        ),
        reward=0.0,
        termination="done",
    )


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("place", ["policy", "request", "reply", "result", "argument"])
def test_every_detector_takes_any_text_in_little_time(name: str, place: str) -> None:
    parts = {"policy": "", "request": "", "reply": "Yes.", "result": '{"status": "sent", "price": 4}', "argument": 4}
    trajectory = conversation(**{**parts, place: TEXTS[name]})
    (episode,) = read_episodes((trajectory,))
    compact(trajectory)
    for detector in DETECTORS.values():
        started = time.process_time()
        assert all(0 < finding.strength <= 1 for finding in detector.find(episode))
        assert time.process_time() - started < 1.5, detector.name


def test_numbers_that_no_float_holds_are_no_amounts() -> None:
    for amount in (10**400, -(10**400), True):
        trajectory = conversation("", "", "Yes.", f'{{"mug": {str(amount).lower()}, "lamp": 3, "rug": 4}}', amount)
        (episode,) = read_episodes((trajectory,))
        for detector in DETECTORS.values():
            list(detector.find(episode))


def test_silence_of_the_user_opens_no_turn() -> None:
    spoken = ("Hello", "", None, "  \n", "Cancel it")
    trajectory = conversation("", "", "Yes.", "{}", 1).replace(
        messages=tuple(Message(role="user", content=text) for text in spoken)
    )
    assert [turn.request for turn in read_episode(trajectory).turns] == ["", "Hello", "Cancel it"]
