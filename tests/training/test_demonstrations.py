"""A demonstration is what the agent loop records when a policy says the same."""

import pytest
from chatml_tokenizer import small_tokenizer

from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.chat.renderer import Renderer
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.helpdesk.short import ShortDesk
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec
from trace_jax.training.demonstrations import tokenized, turns_of


class Script:
    """An engine that says what it was given, turn by turn."""

    def __init__(self, said: list[tuple[int, ...]]) -> None:
        self._said = iter(said)

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, **_: str
    ) -> Completion:
        ids = next(self._said)
        return Completion(ids, (0.0,) * len(ids), "stop")


@pytest.mark.parametrize("seed", range(7))
def test_a_demonstration_equals_the_recorded_episode(seed: int) -> None:
    renderer: Renderer = ChatMLRenderer(small_tokenizer())
    desk = ShortDesk("practice")
    opening = desk.reset(seed).messages
    turns = turns_of(desk, desk.solution())
    shown = tokenized(opening, desk.tools, turns, renderer)
    spec = EpisodeSpec(
        id="x", host=InProcess(lambda: ShortDesk("practice")), target="t", task="x", split="train", seed=seed, trial=0,
        sampling=Sampling(400),
    )  # fmt: skip
    engine = Script([renderer.assistant(message) for message, _ in turns])
    settings = RolloutSettings(max_episode_tokens=4000)
    (episode,) = collect([spec], engine=engine, renderer=renderer, settings=settings, base="base")  # type: ignore[arg-type]
    assert episode.reward == 1.0
    assert [t for s in episode.segments for t in s.tokens] == list(shown.tokens)
    assert [s.trained for s in episode.segments for _ in s.tokens] == list(shown.trained)
