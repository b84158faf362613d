"""A user that a language model plays."""

import re
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

from trace_jax.environments.users.protocol import UserTurn
from trace_jax.errors import TraceError
from trace_jax.llm.blocking import BlockingLanguageModel
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.llm.spending import Spending
from trace_jax.settings import Settings, setting

PROMPT = """\
You play the user of a service and talk to its agent. Stay in this role: you are never the agent.

Your situation:
{scenario}

Rules:
- Write one short message at a time, as a person would.
- Tell only what the agent needs in order to go on. Do not tell everything at once.
- Do not invent facts that your situation does not hold. If you do not know something, say so.
- Do not repeat your situation word for word.
- Once your goal is reached, or cannot be reached, write {stop} in place of a message.
"""
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)  # of servers that leave them in the text


class UserFault(TraceError):
    """The user's model does not play its part. The episode is broken: the agent has not failed it."""


@dataclass(frozen=True, kw_only=True)
class SimulatedUserSettings(Settings):
    """How a simulated user is played."""

    section: ClassVar = "user"
    greeting: str = setting("Hi! How can I help you today?", "what the user hears first, not shown to the agent")
    stop: str = setting("###STOP###", "text with which the user ends the conversation")
    max_turns: int = setting(50, "messages of the user, after which the conversation ends", ge=1)
    empty_replies: int = setting(3, "empty replies in a row, after which the episode is broken", ge=1)


class SimulatedUser:
    """A user that knows ``scenario`` and talks to the agent until it says ``settings.stop``, or for ``max_turns``.

        user = SimulatedUser(
            LanguageModelSettings(url="http://127.0.0.1:8000/v1", model="qwen3", temperature=0.7),
            "You are Ana. You want a refund for order A12, which came broken.",
        )

    Calls block until the model has answered, so such an environment belongs into workers (``target.workers``). A
    request that fails raises LLMError, and a model that keeps saying nothing UserFault: both break the episode. The
    user's messages are the environment's, so no token of theirs is trained.

    Args:
        scenario: who the user is, what it wants and what it knows.
        prompt: the system prompt, with ``{scenario}`` and ``{stop}`` in it.
    """

    def __init__(
        self,
        model: LanguageModelSettings,
        scenario: str,
        *,
        settings: SimulatedUserSettings = SimulatedUserSettings(),  # noqa: B008 (frozen)
        prompt: str = PROMPT,
    ) -> None:
        self._model, self._settings = BlockingLanguageModel(model), settings
        self._system = prompt.replace("{scenario}", scenario).replace("{stop}", settings.stop)
        self._spending, self._seed, self._turns = Spending(), 0, 0
        self._history: list[dict[str, str]] = []

    @property
    def extra(self) -> dict[str, Any]:
        """``user_usage``: the model, its answers and tokens in this conversation, and what they cost in dollars."""
        return {"user_usage": self._spending.as_json(self._model.settings)}

    def begin(self, seed: int) -> UserTurn:
        """What the user opens the conversation with."""
        self._spending, self._seed, self._turns = Spending(), seed, 0
        self._history = [{"role": "system", "content": self._system}]
        return self.answer(self._settings.greeting)

    def answer(self, message: str) -> UserTurn:
        """What the user says to the agent's ``message``."""
        if self._turns == self._settings.max_turns:
            return UserTurn("", done=True)
        self._history.append({"role": "user", "content": message})
        text = self._reply()
        self._history.append({"role": "assistant", "content": text})
        self._turns += 1
        spoken, stop, _ = text.partition(self._settings.stop)
        return UserTurn(spoken.strip(), done=bool(stop))

    def _reply(self) -> str:
        """A reply that is not empty; each attempt has a seed of its own."""
        for attempt in range(self._settings.empty_replies):
            seed = zlib.crc32(f"{self._seed}/{self._turns}/{attempt}".encode()) & 0x7FFFFFFF
            answer = self._model.complete(self._history, seed=seed)
            self._spending.add(answer.usage)
            if text := _THOUGHTS.sub("", answer.text).strip():
                return text
        raise UserFault(
            f"{self._model.settings.url}: model {self._model.settings.model!r} said nothing as the user, "
            f"{self._settings.empty_replies} times in turn {self._turns + 1}: choose another model or prompt"
        )
