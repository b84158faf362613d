"""Users: scripted, and played by a language model, in worker threads and inside a running event loop."""

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest
from scripted_endpoint import Endpoint, raw, refusal, said

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.child import WorkerPlan
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.hosts.pool import Pool, PoolHost
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.users import ScriptedUser, SimulatedUser, SimulatedUserSettings, UserFault, UserTurn
from trace_jax.errors import UserError
from trace_jax.llm import LanguageModelSettings, LLMError
from trace_jax.rollout.agent import run_episode
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec

RENDERER = TinyRenderer(train_tokenizer(["please thanks refund order"] * 3, 300))


def model(served: Endpoint, **changes: object) -> LanguageModelSettings:
    quick = {"retry_seconds": 0.01, "attempts": 2, "api_key_variable": "", "temperature": 0.7}
    return LanguageModelSettings(**{"url": served.url, "model": "m", **quick, **changes})


def test_a_script_is_said_line_by_line() -> None:
    user = ScriptedUser(["hello", lambda said: f"you said {said}", "bye"])
    for _ in range(2):
        turns = [user.begin(3), *(user.answer(word) for word in "abc")]
        assert turns == [UserTurn("hello"), UserTurn("you said a"), UserTurn("bye"), UserTurn("", done=True)]
    assert user.extra == {}
    last = ScriptedUser(["hello", "bye"], ends_with_last=True)
    assert [last.begin(0).done, last.answer("x").done] == [False, True]
    with pytest.raises(ValueError, match="without lines"):
        ScriptedUser([])


def test_turns_are_observations() -> None:
    assert UserTurn("hi").observation() == Observation((Message(role="user", content="hi"),))
    assert UserTurn("", done=True).observation() == Observation((), done=True)


def test_the_model_plays_the_user_and_hears_the_agent(served: Endpoint) -> None:
    served.script = [said(" A refund, please. ", usage=(30, 6)), said("A12", usage=(40, 2)), said("Bye ###STOP###")]
    user = SimulatedUser(model(served, prompt_price=1.0, completion_price=2.0), "You are Ana.")
    assert user.begin(5) == UserTurn("A refund, please.")
    assert user.answer("Which order?") == UserTurn("A12")
    assert user.answer("Done.") == UserTurn("Bye", done=True)
    last = served.bodies[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "You are Ana." in last[0]["content"] and "###STOP###" in last[0]["content"]
    assert [message["content"] for message in last[1:]] == [
        "Hi! How can I help you today?", "A refund, please.", "Which order?", "A12", "Done."
    ]  # fmt: skip
    assert user.extra["user_usage"] == {
        "model": "m", "answers": 3, "prompt_tokens": 77, "completion_tokens": 11,
        "unknown": 0, "dollars": pytest.approx((77 + 22) / 1e6),
    }  # fmt: skip


def test_the_same_seed_asks_the_same_and_another_one_asks_otherwise(served: Endpoint) -> None:
    def seeds(seed: int) -> list[int]:
        served.bodies.clear()
        user = SimulatedUser(model(served), "x")
        user.begin(seed)
        user.answer("y")
        return [body["seed"] for body in served.bodies]

    assert seeds(1) == seeds(1) and len(set(seeds(1)) | set(seeds(2))) == 4
    assert all(body["temperature"] == 0.7 for body in served.bodies)


def test_a_new_conversation_forgets_the_last_one(served: Endpoint) -> None:
    user = SimulatedUser(model(served), "x")
    user.begin(1)
    user.answer("secret of the first")
    user.begin(2)
    assert len(served.bodies[-1]["messages"]) == 2 and user.extra["user_usage"]["answers"] == 1


def test_empty_replies_are_tried_again_with_another_seed_and_then_break(served: Endpoint) -> None:
    served.script = [said(" "), said(None), said("<think>\nwhat now\n</think>\n yes")]
    user = SimulatedUser(model(served), "x")
    assert user.begin(1) == UserTurn("yes")
    assert len({body["seed"] for body in served.bodies}) == 3 and user.extra["user_usage"]["answers"] == 3
    served.reply = lambda body: said("")
    with pytest.raises(UserFault, match=r"model 'm' said nothing as the user, 3 times in turn 2: choose another"):
        user.answer("z")


def test_stop_and_the_bound_on_turns_are_settings(served: Endpoint) -> None:
    served.reply = lambda body: said("more [END] never heard")
    user = SimulatedUser(model(served), "x", settings=SimulatedUserSettings(stop="[END]"))
    assert user.begin(1) == UserTurn("more", done=True)
    served.reply = lambda body: said("more")
    bounded = SimulatedUser(model(served), "x", settings=SimulatedUserSettings(max_turns=2))
    assert [bounded.begin(1).done, bounded.answer("a").done] == [False, False]
    sent = len(served.bodies)
    assert bounded.answer("b") == UserTurn("", done=True) and len(served.bodies) == sent
    with pytest.raises(UserError, match="user.max_turns is 0"):
        SimulatedUserSettings(max_turns=0)


@pytest.mark.parametrize("fault", [refusal(500), refusal(401), raw(b"{")])
def test_faults_of_the_model_are_raised(served: Endpoint, fault: object) -> None:
    served.reply = lambda body: fault
    with pytest.raises(LLMError):
        SimulatedUser(model(served), "x").begin(1)


def test_it_works_in_a_running_loop_and_in_many_threads(served: Endpoint) -> None:
    served.delay = 0.1

    async def inside() -> UserTurn:
        return SimulatedUser(model(served), "x").begin(1)

    assert asyncio.run(inside()) == UserTurn("hello")
    users = [SimulatedUser(model(served, concurrency=4), "x") for _ in range(12)]
    threads = [threading.Thread(target=user.begin, args=(seed,)) for seed, user in enumerate(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.most == 4 and all(user.extra["user_usage"]["answers"] == 1 for user in users)


class Desk:
    """Ends when the user does; passes if the user was thanked."""

    name, tools = "desk", ()

    def __init__(self, served: Endpoint) -> None:
        self.user = SimulatedUser(model(served), "You are Ana.")
        self.said: list[str] = []

    def reset(self, seed: int) -> Observation:
        return self.user.begin(seed).observation()

    def step(self, message: Message) -> Observation:
        self.said.append(message.content or "")
        return self.user.answer(self.said[-1]).observation()

    def grade(self) -> Outcome:
        return Outcome(1.0, extra=self.user.extra)

    @property
    def extra(self) -> dict[str, Any]:
        return self.user.extra


class Agent:
    """An engine that always says thanks."""

    def __init__(self, renderer: TinyRenderer) -> None:
        self.thanks = renderer.assistant(Message(role="assistant", content="thanks"))

    async def generate(self, token_ids, sampling, adapter=None, *, affinity=""):
        return Completion(self.thanks, (0.0,) * len(self.thanks), "stop")


def played(served: Endpoint, max_seconds: float = 30.0) -> Trajectory:
    spec = EpisodeSpec(
        id="e", host=InProcess(lambda: Desk(served)), target="desk", task="1", split="train", seed=1, trial=0,
        sampling=Sampling(8),
    )  # fmt: skip
    settings = RolloutSettings(max_turns=4, max_seconds=max_seconds, max_episode_tokens=400)
    return asyncio.run(run_episode(spec, engine=Agent(RENDERER), renderer=RENDERER, settings=settings, base="b"))


def test_its_words_are_not_trained_and_its_tokens_are_in_the_trajectory(served: Endpoint) -> None:
    served.script = [said("refund", usage=(20, 2)), said("order", usage=None), said("###STOP###", usage=(30, 4))]
    episode = played(served)
    assert [message.content for message in episode.messages] == ["refund", "thanks", "order", "thanks"]
    trained = {segment.tokens for segment in episode.segments if segment.trained}
    assert trained == {Agent(RENDERER).thanks} and episode.reward == 1.0
    usage = episode.extra["user_usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["unknown"]) == (50, 6, 1)
    assert usage["dollars"] is None


def test_a_fault_of_its_model_breaks_the_episode_and_is_no_reward(served: Endpoint) -> None:
    served.script = [said("refund", usage=(20, 2))]
    served.reply = lambda body: refusal(500, "out of memory")
    episode = played(served)
    assert episode.reward is None and "LLMError: " in str(episode.error) and "out of memory" in str(episode.error)
    usage = episode.extra["user_usage"]
    assert (usage["answers"], usage["prompt_tokens"], usage["completion_tokens"]) == (1, 20, 2)


def test_extra_that_cannot_be_told_leaves_the_reason_of_the_broken_episode(served: Endpoint, monkeypatch) -> None:
    served.reply = lambda body: refusal(500, "out of memory")
    for extra, words in (({"x": float("nan")}, "not a dictionary of JSON values"), (1 / 3, "extra is '0.33")):
        monkeypatch.setattr(Desk, "extra", extra)
        episode = played(served)
        assert "out of memory" in str(episode.error) and words in episode.extra["extra_fault"]


def test_a_hanging_user_breaks_the_episode_in_time(served: Endpoint) -> None:
    served.reply = lambda body: 20.0
    started = time.monotonic()
    episode = played(served, max_seconds=1.0)
    assert episode.reward is None and "TimeoutError" in str(episode.error) and time.monotonic() - started < 8


def test_in_a_worker_it_waits_for_its_model_and_holds_up_nobody(served: Endpoint) -> None:
    served.delay = 0.5
    pool = Pool(WorkerPlan("talking_target:Talking", {"url": served.url}, None, 30.0, 60.0), 1)

    async def play(task: int) -> tuple[Observation, Outcome]:
        episode = await PoolHost(pool, "train").open()
        first = await episode.reset(task)
        return first, await episode.grade()

    async def play_all() -> list[tuple[Observation, Outcome]]:
        await play(0)  # the worker has imported what it needs then
        played = await asyncio.gather(*(play(task) for task in range(8)))
        assert served.most > 1  # at the same time
        return played

    try:
        for first, outcome in asyncio.run(play_all()):
            assert first == Observation((Message(role="user", content="hello"),))
            assert outcome.extra["user_usage"]["prompt_tokens"] == 7
        served.reply = lambda body: refusal(500, "down")
        with pytest.raises(EnvironmentFault, match="LLMError: .* status 500 after 2 attempts: down"):
            asyncio.run(play(1))
    finally:
        pool.close()


@pytest.mark.parametrize("end", ["the model fails", "the worker is killed", "the step hangs"])
def test_in_a_worker_its_tokens_outlive_the_episode(served: Endpoint, end: str) -> None:
    served.script = [said("refund", usage=(20, 2)), said("order", usage=(30, 4))]
    limit = 4.0 if end == "the step hangs" else 60.0
    pool = Pool(WorkerPlan("talking_target:Talking", {"url": served.url}, None, limit, 60.0), 1)
    replies = {"the model fails": refusal(500, "down"), "the step hangs": 60.0}

    async def play() -> dict[str, Any]:
        episode = await PoolHost(pool, "train").open()
        await episode.reset(1)
        await episode.step(Message(role="assistant", content="Which order?"))
        served.reply = lambda body: replies.get(end, said("A12"))
        if end == "the worker is killed":
            os.kill(pool.workers()[0].pid, signal.SIGKILL)
        with pytest.raises(EnvironmentFault):
            await episode.step(Message(role="assistant", content="Which one?"))
        return episode.extra

    try:
        usage = asyncio.run(play())["user_usage"]
    finally:
        pool.close()
    assert (usage["answers"], usage["prompt_tokens"], usage["completion_tokens"]) == (2, 50, 6)
