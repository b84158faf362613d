"""Episodes that an endpoint plays: messages as it gets and gives them, honest endings, no fault that is a reward."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_endpoint import Endpoint, Reply, raw, refusal, said

from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.trajectory import Message, Tool, ToolCall, Trajectory, Usage
from trace_jax.engines.chat import ChatEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.errors import EngineGone, UserError
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec, turn_seed

ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
ROLLOUT = RolloutSettings(max_turns=6, max_episode_tokens=1000, max_turn_tokens=64, max_seconds=20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_jax.llm.model._FIRST_WAIT", 0.01)


class Sums:
    """Two turns: a call, then a reply. Passes if 2 was added."""

    name, tools = "sums", (ADD,)

    def __init__(self, turns: int = 2) -> None:
        self.seen: list[Message] = []
        self.turns = turns

    def reset(self, seed: int) -> Observation:
        return Observation((Message(role="system", content="Add."), Message(role="user", content=f"task {seed}")))

    def step(self, message: Message) -> Observation:
        self.seen.append(message)
        done = len(self.seen) >= self.turns
        if not message.tool_calls:
            return Observation(() if done else (Message(role="user", content="go on"),), done)
        return Observation(tuple(Message(role="tool", content="ok") for _ in message.tool_calls), done)

    def grade(self) -> Outcome:
        added = [call.arguments for message in self.seen for call in message.tool_calls]
        return Outcome(float({"a": 2} in added), extra={"turns": len(self.seen)})


def spec(number: int = 0, **changes: Any) -> EpisodeSpec:
    sampling = Sampling(64, 0.5, 100 + number)
    common = {
        "host": InProcess(Sums),
        "target": "sums",
        "task": str(number),
        "split": "train",
        "seed": number,
        "trial": 0,
    }
    return EpisodeSpec(**{"id": f"base/sums/train/{number}/0", "sampling": sampling, **common, **changes})


def engine(served: Endpoint, **changes: Any) -> ChatEngine:
    return ChatEngine(
        EngineSettings(**{"kind": "chat", "url": served.url, "model": "m", "wait_seconds": 0.5, **changes})
    )


def play(served: Endpoint, specs: Sequence[EpisodeSpec] = (), rollout: RolloutSettings = ROLLOUT) -> list[Trajectory]:
    chat = engine(served)
    return collect(specs or [spec()], engine=chat, renderer=None, settings=rollout, base=chat.name)


def test_messages_go_back_and_forth_and_the_endpoint_counts(served: Endpoint) -> None:
    called = said(None, calls=[("add", '{"a": 2}'), ("add", '{"a":')], usage=(50, 8), message={"reasoning": "so"})
    served.script = [called, said("Done.", usage=(70, 2))]
    (episode,) = play(served)
    calls = (
        ToolCall(id="c0", name="add", arguments={"a": 2}),
        ToolCall(id="c1", name="add", arguments=None, raw_arguments='{"a":'),
    )
    start = (Message(role="system", content="Add."), Message(role="user", content="task 0"))
    result = Message(role="tool", content="ok")
    turn, end = Message(role="assistant", tool_calls=calls), Message(role="assistant", content="Done.")
    assert episode.messages == (*start, turn, result, result, end)
    assert episode.reward == 1.0 and episode.termination == "done" and episode.error is None
    assert episode.segments == () and episode.usage == Usage(prompt_tokens=120, completion_tokens=10)
    assert episode.policy.base == f"m@{served.url.split('/')[2]}" and episode.policy.adapter is None
    assert episode.extra == {"turns": 2, "reasoning": {"0": "so"}} and episode.tools == (ADD,)

    first, second = served.bodies
    assert first["tools"] == [{"type": "function", "function": ADD.offered()}]
    assert (first["temperature"], first["max_tokens"]) == (0.5, 64)
    assert [first["seed"], second["seed"]] == [turn_seed(100, 0), turn_seed(100, 1)]
    assert first["messages"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "task 0"}]
    assert second["messages"][2:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c0", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}},
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":'}},
            ],
        },
        {"role": "tool", "content": "ok", "tool_call_id": "c0"},
        {"role": "tool", "content": "ok", "tool_call_id": "c1"},
    ]
    assert {headers["x-trace-conversation"] for headers in served.headers} == {episode.id}


class SumsOfTasks(Sums):
    """Each task offers a tool of its own."""

    def reset(self, seed: int) -> Observation:
        self.tools = (ADD.replace(name=f"add_{seed}"),)
        return super().reset(seed)


def test_the_endpoint_is_offered_the_tools_of_the_task(served: Endpoint) -> None:
    served.script = [said("Done.")] * 2
    (episode,) = play(served, [spec(3, host=InProcess(SumsOfTasks))])
    assert [tool.name for tool in episode.tools] == ["add_3"]
    assert served.bodies[0]["tools"] == [{"type": "function", "function": episode.tools[0].offered()}]


def test_ids_of_calls_are_those_of_the_endpoint_unless_they_come_again(served: Endpoint) -> None:
    again = [said(None, calls=[("add", "{}"), ("add", "{}")]) for _ in range(2)]
    again[1]["choices"][0]["message"]["tool_calls"][1]["id"] = None
    served.script = list(again)
    (episode,) = play(served)
    assert [call.id for message in episode.messages for call in message.tool_calls] == [
        "c0",
        "c1",
        "call_1_0",
        "call_1_1",
    ]


def test_unknown_usage_is_told_apart_from_zero(served: Endpoint, tmp_path) -> None:
    served.script = [said("a", usage=None), said("b", usage=(9, 1))]
    (episode,) = play(served)
    assert episode.usage == Usage(prompt_tokens=9, completion_tokens=1)
    assert episode.extra["turns_of_unknown_usage"] == 1
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.append(episode)
    assert list(read_records(tmp_path / "t.jsonl", Trajectory)) == [episode]


@pytest.mark.parametrize(
    "faults,words",
    [
        ([raw(b'{"choices": []}')] * 6, "no chat completion"),
        ([refusal(400, "seed is not supported")], "status 400: seed is not supported"),
        ([refusal(400, "too long", "context_length_exceeded")], "PromptTooLong"),
    ],
)
def test_a_fault_breaks_its_episode_and_no_other(served: Endpoint, faults, words: str) -> None:
    left = list(faults)

    def reply(body: dict[str, Any]) -> Reply:
        return left.pop(0) if "task 1" in str(body) and left else said("x", calls=[("add", '{"a": 2}')])

    served.reply = reply
    episodes = play(served, [spec(0), spec(1), spec(2)])
    assert [episode.reward for episode in episodes] == [1.0, None, 1.0]
    assert words in str(episodes[1].error) and episodes[1].termination == "error" and not left
    assert len(episodes[1].messages) == 2


def test_a_hang_ends_with_the_episodes_time(served: Endpoint) -> None:
    served.reply = lambda body: 30.0
    started = time.monotonic()
    (episode,) = play(served, rollout=RolloutSettings(max_seconds=0.5))
    assert episode.error == "TimeoutError: episode took longer than max_seconds=0.5" and time.monotonic() - started < 20


def test_waits_of_the_endpoint_are_not_the_episodes_time(served: Endpoint) -> None:
    served.script = [refusal(429, Retry_After="3"), said("x", calls=[("add", '{"a": 2}')]), said("y")]
    (episode,) = play(served, rollout=RolloutSettings(max_seconds=2.5))
    assert episode.reward == 1.0 and episode.seconds > 3.0


@pytest.mark.parametrize(
    "rollout,replies,termination,turns",
    [
        ({"max_turns": 3}, [said("x")] * 9, "max_turns", 3),
        ({"max_episode_tokens": 100}, [said("x", usage=(60, 10)), said("y", usage=(95, 5))], "max_tokens", 2),
        ({}, [said("x"), refusal(400, "no", "context_length_exceeded")], "max_tokens", 1),
        ({}, [said("x"), refusal(400, "This model's maximum context length is 9 tokens")], "max_tokens", 1),
        ({}, [said("x", finish_reason="length"), said(None, finish_reason="content_filter")] * 5, "done", 9),
    ],
)
def test_bounds_are_graded_as_it_stands(served: Endpoint, rollout, replies, termination: str, turns: int) -> None:
    served.script = list(replies)
    settings = RolloutSettings(**{"max_turns": 12, "max_episode_tokens": 1000, **rollout})
    (episode,) = play(served, [spec(host=InProcess(lambda: Sums(9)))], settings)
    assert (episode.termination, episode.reward, episode.extra["turns"]) == (termination, 0.0, turns)


def test_an_endpoint_that_refuses_or_is_away_ends_the_collection(served: Endpoint) -> None:
    served.script = [refusal(401, "bad key")] * 2
    with pytest.raises(EngineGone, match=r"status 401: bad key: set a valid API key in \$OPENAI_API_KEY"):
        play(served, [spec(0), spec(1)])
    with pytest.raises(EngineGone, match="no connection"):
        play(Endpoint(url="http://127.0.0.1:9/v1"))


def test_many_play_at_once(served: Endpoint) -> None:
    served.delay = 0.2
    episodes = play(served, [spec(number) for number in range(24)], RolloutSettings(concurrency=24))
    assert served.most > 12 and not any(episode.broken for episode in episodes)


@pytest.mark.parametrize("extra", [{"x": float("nan")}, {"x": (1,)}, {1: 2}, {"x": "\ud800"}, [1], None])
def test_extra_that_no_file_holds_breaks_the_episode(served: Endpoint, extra: Any) -> None:
    class Odd(Sums):
        def grade(self) -> Outcome:
            return Outcome(1.0, extra=extra)

    (episode,) = play(served, [spec(host=InProcess(Odd))])
    assert "extra is " in str(episode.error) and episode.reward is None


def test_an_endpoint_needs_its_url_and_model() -> None:
    for changes, words in (({"url": "http://h/v1"}, "engine.model is empty"), ({"model": "m"}, "engine.url ''")):
        with pytest.raises(UserError, match=words):
            EngineSettings(kind="chat", **changes)


def test_names_of_conversations_fit_into_a_header(served: Endpoint) -> None:
    play(served, [spec(id="é"), spec(id="x" * 300)])
    names = {headers["x-trace-conversation"] for headers in served.headers}
    assert len(names) == 2 and all(len(name) == 64 for name in names)
    assert json.dumps(served.bodies[0])
