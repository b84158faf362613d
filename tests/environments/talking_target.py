"""A target whose user a language model plays, for workers."""

import openai  # noqa: F401 (takes a second or more, which no step of an episode shall take)

from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.users import SimulatedUser
from trace_jax.llm import LanguageModelSettings


class Desk:
    """Ends when the user does."""

    name, tools = "talking", ()

    def __init__(self, url: str) -> None:
        settings = LanguageModelSettings(url=url, model="m", attempts=2, retry_seconds=0.01, api_key_variable="")
        self.user = SimulatedUser(settings, "You are Ana.")

    def reset(self, task: int) -> Observation:
        return self.user.begin(task).observation()

    def step(self, message: Message) -> Observation:
        return self.user.answer(message.content or "").observation()

    def grade(self) -> Outcome:
        return Outcome(1.0, extra=self.user.extra)

    @property
    def extra(self) -> dict:
        return self.user.extra


class Talking:
    """Its workers are told where the model is."""

    name = "talking"
    results: dict[str, dict] = {}

    def __init__(self, url: str) -> None:
        self.url = url

    def tasks(self, split: str) -> tuple[int, ...]:
        return (1, 2) if split == "train" else (3,)

    def environment(self, split: str) -> Desk:
        return Desk(self.url)
