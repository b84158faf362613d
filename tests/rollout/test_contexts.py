"""Whole episodes of a model that says anything: what the engine saw at every turn is what is recorded and trained."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chatml_tokenizer import small_tokenizer as chatml_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3_tokenizer import TAGS
from qwen3_tokenizer import small_tokenizer as qwen3_tokenizer
from tokenizers import Tokenizer

from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.chat.renderer import Renderer
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import SPECIAL_TOKENS
from trace_jax.contract.trajectory import Message, Tool, Trajectory
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec
from trace_jax.training.sample import samples

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
TOOL = Tool(name="f", description="Does it.", parameters={"type": "object", "properties": {}})
SAID = (
    "<think>\nso\n</think>\n\n",
    "<think>\n\n</think>\n\n",
    '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
    '\n/f {"a":1}',
    "<|call|>f {}",
    "Well, ",
    *TAGS,
    *SPECIAL_TOKENS,
)


class Anything:
    """An engine that samples what it likes: whole phrases and single tokens. It keeps what it saw and said."""

    def __init__(self, tokenizer: Tokenizer, stop: int, seed: int) -> None:
        self.size, self.stop, self.random = tokenizer.get_vocab_size(), stop, random.Random(seed)
        self.phrases = [tokenizer.encode(text).ids for text in SAID]
        self.turns: list[tuple[tuple[int, ...], Completion]] = []

    async def generate(self, token_ids: tuple[int, ...], sampling: Sampling, *_: Any, **__: Any) -> Completion:
        ids: list[int] = []
        for _ in range(self.random.randrange(5)):
            ids += self.random.choice([*self.phrases, [self.random.randrange(self.size)]])
        ids = [index for index in ids if index != self.stop] + [self.stop]
        ids = ids[: sampling.max_tokens]
        logprobs = tuple(-self.random.random() for _ in ids)
        self.turns.append((token_ids, Completion(tuple(ids), logprobs, "stop" if ids[-1] == self.stop else "length")))
        return self.turns[-1][1]


class Scripted:
    """Answers as told, whatever is said; remembers what it heard."""

    name, tools = "scripted", (TOOL,)

    def __init__(self, opening: Sequence[Message], answers: Sequence[Sequence[Message]]) -> None:
        self.opening, self.answers, self.heard = tuple(opening), list(answers), list[Message]()

    def reset(self, seed: int) -> Observation:
        return Observation(self.opening)

    def step(self, message: Message) -> Observation:
        self.heard.append(message)
        return Observation(tuple(self.answers[len(self.heard) - 1]), done=len(self.heard) == len(self.answers))

    def grade(self) -> Outcome:
        return Outcome(0.5)


RENDERERS = {
    "tiny": TinyRenderer,
    "chatml": ChatMLRenderer,
    "thinking": lambda tokenizer: Qwen3Renderer(tokenizer, "thinking"),
    "no_thinking": lambda tokenizer: Qwen3Renderer(tokenizer, "no_thinking"),
    "instruct": lambda tokenizer: Qwen3Renderer(tokenizer, "instruct"),
}


@pytest.fixture(scope="module")
def tokenizers(tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    qwen = qwen3_tokenizer()
    return {
        "tiny": tokenizer,
        "chatml": chatml_tokenizer(),
        "thinking": qwen,
        "no_thinking": qwen,
        "instruct": qwen,
    }


@pytest.fixture(scope="module", params=RENDERERS)
def family(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> tuple[str, Tokenizer, Renderer]:
    tokenizer = tokenizers[request.param]
    return request.param, tokenizer, RENDERERS[request.param](tokenizer)


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
heard = st.builds(
    lambda role, content: Message(role=role, content=content),
    st.sampled_from(["tool", "tool", "tool", "user", "system"]),
    contents,
)
conversations = st.tuples(
    st.lists(heard, min_size=1, max_size=3), st.lists(st.lists(heard, max_size=3), min_size=1, max_size=7)
)
ROLLOUT = RolloutSettings(max_turns=6, max_episode_tokens=2000, max_seconds=60)


def play(
    engine: Anything, renderer: Renderer, environment: Scripted, settings: RolloutSettings = ROLLOUT
) -> Trajectory:
    spec = EpisodeSpec(
        id="e", host=InProcess(lambda: environment), target="t", task="0", split="train", seed=0, trial=0,
        sampling=Sampling(40),
    )  # fmt: skip
    (trajectory,) = collect([spec], engine=engine, renderer=renderer, settings=settings, base="base")  # type: ignore[arg-type]
    return trajectory


@SETTINGS
@given(conversation=conversations, seed=st.integers(0, 2**32))
def test_what_was_seen_is_what_is_recorded_and_trained(
    family: tuple[str, Tokenizer, Renderer], conversation: tuple[list[Message], list[list[Message]]], seed: int
) -> None:
    name, tokenizer, renderer = family
    engine, environment = Anything(tokenizer, renderer.stop_token_ids[0], seed), Scripted(*conversation)
    trajectory = play(engine, renderer, environment)
    assert trajectory.error is None
    # At every turn the context is the concatenation of what was rendered and sampled since it began.
    segments, context, turns = list(trajectory.segments), list[int](), iter(engine.turns)
    history, turn = list(conversation[0]), 0
    assert [segment.trained for segment in segments] == [False, True] * len(engine.turns)
    for rendered, sampled in zip(segments[::2], segments[1::2], strict=True):
        if turn == 0 or rendered.fresh:
            context = list(renderer.prompt(history, (TOOL,)))
            assert rendered.tokens == tuple(context) and rendered.fresh == bool(turn)
        else:
            context += rendered.tokens
        seen, said = next(turns)
        assert seen == tuple(context)
        assert (sampled.tokens, sampled.logprobs) == (said.token_ids, said.logprobs)
        context += sampled.tokens
        message = renderer.parse(said.token_ids)
        assert environment.heard[turn].content == renderer.spoken(message).content
        history += [message, *conversation[1][turn]]
        turn += 1
    # A sample is a context: what the engine saw at its last turn, and what it said then.
    made = samples(trajectory, 1.0)
    last = [i for i in range(turn) if i == turn - 1 or segments[2 * i + 2].fresh]
    assert [tuple(sample.tokens_T) for sample in made] == [
        engine.turns[i][0] + engine.turns[i][1].token_ids for i in last
    ]
    trained = [index for sample in made for index in sample.tokens_T[sample.trained_T]]
    assert trained == [index for _, said in engine.turns for index in said.token_ids]
    logprobs = np.concatenate([sample.logprobs_T[sample.trained_T] for sample in made])
    assert logprobs.tolist() == [value for _, said in engine.turns for value in said.logprobs]
    assert trajectory.usage.completion_tokens == len(trained)
    assert trajectory.usage.prompt_tokens == sum(sample.length for sample in made) - len(trained)
    if name in ("tiny", "chatml", "instruct"):
        assert len(made) == 1
    if name == "no_thinking":
        assert len(made) == turn


def thoughtful(tokenizer: Tokenizer) -> Any:
    """An engine whose every turn is 30 tokens of thinking and a word."""
    text = tokenizer.encode("<think>\n" + "so " * 12 + "\n</think>\n\nYes.<|im_end|>").ids

    class Thoughtful(Anything):
        async def generate(self, token_ids: tuple[int, ...], sampling: Sampling, *_: Any, **__: Any) -> Completion:
            said = Completion(tuple(text), (0.0,) * len(text), "stop")
            self.turns.append((token_ids, said))
            return said

    return Thoughtful(tokenizer, text[-1], 0)


def test_the_limit_of_tokens_is_the_context_s(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["thinking"]
    renderer = Qwen3Renderer(tokenizer, "thinking")
    asked, told = Message(role="user", content="And now?"), Message(role="tool", content="1")

    def lengths(answer: Message, limit: int) -> tuple[int, str]:
        engine = thoughtful(tokenizer)
        trajectory = play(
            engine, renderer, Scripted([asked], [[answer]] * 7), replace(ROLLOUT, max_episode_tokens=limit)
        )
        assert trajectory.error is None
        assert all(len(seen) <= limit for seen, _ in engine.turns)
        return len(engine.turns), trajectory.termination

    whole = len(renderer.prompt([asked], (TOOL,))) + 160
    assert lengths(told, whole)[1] == "max_tokens"  # thinking adds up while tools answer
    assert lengths(asked, whole) == (6, "max_turns")  # and is left behind where the user does
