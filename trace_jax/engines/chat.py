"""The chat engine: any OpenAI-compatible endpoint plays, messages in and a message out.

Nothing is known of its tokens, so what it plays is analysed and scored, and never trained on.
"""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trace_jax.chat.calls import call_of
from trace_jax.chat.openai_form import message_objects, tool_objects
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.episode_clock import off_the_clock
from trace_jax.errors import EngineGone
from trace_jax.llm.answer import Answer, TokenUsage
from trace_jax.llm.errors import EndpointRefused, EndpointUnreachable
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.llm.spending import Spending

CONVERSATION = "X-Trace-Conversation"  # our gateway keeps conversations apart by it; other endpoints ignore it
_LONGEST_NAME = 256
_RETRY = 1.0  # seconds between attempts to reach an endpoint that is away


@dataclass(frozen=True)
class ChatReply:
    """One turn of the model. ``usage`` is None if the endpoint did not count it."""

    message: Message
    reasoning: str
    finish_reason: str
    usage: TokenUsage | None


class ChatEngine:
    """Plays by an endpoint.

    Attributes:
        name: ``model@host:port``, the base in the trajectories' policy.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._model = LanguageModel(_model_settings(settings), sleep=_sleep_off_the_clock)
        self.name = f"{settings.model}@{urlsplit(settings.url).netloc}"

    @property
    def spending(self) -> Spending:
        """Totals of all requests."""
        return self._model.spending

    @property
    def dollars(self) -> float | None:
        """What they cost in US dollars; None without prices."""
        return self.spending.dollars(self._model.settings)

    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool], sampling: Sampling, *, conversation: str
    ) -> ChatReply:
        """The next turn of ``conversation``. Its calls have ids that no earlier call has.

        Raises LLMError, PromptTooLong, and EngineGone if the endpoint refuses every request or cannot be reached for
        ``engine.wait_seconds``. Waits for an endpoint do not count towards the time of an episode.
        """
        answer = await self._answer(messages, tools, sampling, conversation)
        used = {call.id for message in messages for call in message.tool_calls}
        turn = sum(message.role == "assistant" for message in messages)
        return ChatReply(_message(answer, turn, used), answer.reasoning, answer.finish_reason, answer.usage)

    async def _answer(
        self, messages: Sequence[Message], tools: Sequence[Tool], sampling: Sampling, conversation: str
    ) -> Answer:
        end = asyncio.get_running_loop().time() + self._settings.wait_seconds
        while True:
            try:
                return await self._model.complete(
                    message_objects(messages),
                    tools=tool_objects(tools),
                    seed=sampling.seed,
                    temperature=sampling.temperature,
                    max_tokens=sampling.max_tokens,
                    headers={CONVERSATION: _header(conversation)},
                )
            except EndpointRefused as error:
                raise EngineGone(str(error)) from error
            except EndpointUnreachable as error:
                if asyncio.get_running_loop().time() >= end:
                    raise EngineGone(str(error)) from error
                await _sleep_off_the_clock(_RETRY)


def _message(answer: Answer, turn: int, used: Collection[str]) -> Message:
    """The assistant's message. Arguments that are no JSON object stay as they were written."""
    calls, taken = [], set(used)
    for number, found in enumerate(answer.calls):
        call_id = found.id if found.id and found.id not in taken else f"call_{turn}_{number}"
        taken.add(call_id)
        calls.append(call_of(number, found.name, found.arguments).model_copy(update={"id": call_id}))
    return Message(role="assistant", content=answer.text or None, tool_calls=tuple(calls))


def _header(conversation: str) -> str:
    """The id itself, or its SHA-256 if it is too long for a header or has characters that no header holds."""
    if len(conversation) <= _LONGEST_NAME and conversation.isascii() and conversation.isprintable():
        return conversation
    return hashlib.sha256(conversation.encode()).hexdigest()


def _model_settings(settings: EngineSettings) -> LanguageModelSettings:
    return LanguageModelSettings(
        url=settings.url,
        model=settings.model,
        api_key_variable=settings.api_key_variable,
        max_tokens_field=settings.max_tokens_field,
        request_seconds=settings.request_seconds,
        concurrency=settings.slots,
        prompt_price=settings.prompt_price,
        completion_price=settings.completion_price,
    )


async def _sleep_off_the_clock(seconds: float) -> None:
    with off_the_clock():
        await asyncio.sleep(seconds)
