"""One language model behind an OpenAI-compatible endpoint."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import tenacity

from trace_jax.llm.answer import Answer, Unreadable, read_answer
from trace_jax.llm.clients import Client, Clients, api_key
from trace_jax.llm.failures import FailedAttempt, of_connection, of_status
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.llm.spending import Spending

_FIRST_WAIT = 0.5  # seconds; doubled at each further attempt


class LanguageModel:
    """Asks a model for chat completions.

        model = LanguageModel(LanguageModelSettings(url="http://127.0.0.1:8000/v1", model="qwen3"))
        answer = await model.complete([{"role": "user", "content": "Hello"}], seed=7)
        answer.text, model.spending.prompt_tokens

    A request is sent again after a rate limit, a status of 500 or more, a timeout, a lost connection and a body that is
    no completion, at most ``settings.attempts`` times. Between attempts it waits as long as ``Retry-After`` says, else
    half a second, doubled each time, with jitter. A ``Retry-After`` beyond ``settings.retry_seconds`` ends it at once.
    At most ``settings.concurrency`` requests are in flight in one event loop; those that wait to be sent again are not.

    Args:
        sleep: waits the given number of seconds between attempts.

    Attributes:
        spending: totals of all requests so far.
    """

    def __init__(
        self, settings: LanguageModelSettings, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.settings, self.spending = settings, Spending()
        self._key = api_key(settings.api_key_variable)
        self._clients, self._sleep = Clients(settings, self._key), sleep
        self._where = f"{settings.url}: model {settings.model!r}"

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to ``messages``, which are OpenAI's message objects, as ``tools`` are its tool objects.

        ``temperature`` and ``max_tokens`` replace those of the settings. Raises LLMError, EndpointRefused for what only
        a user can mend, and EndpointUnreachable if there is no connection.
        """
        settings = self.settings
        limit = settings.max_tokens if max_tokens is None else max_tokens
        fields = {
            "model": settings.model,
            "messages": list(messages),
            "tools": list(tools) or None,
            "seed": seed,
            "temperature": settings.temperature if temperature is None else temperature,
            settings.max_tokens_field: limit,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FailedAttempt) and error.again),
            stop=self._stop,
            wait=self._wait,
            sleep=self._sleep,
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            answer: Answer = await attempts(self._attempt, given, headers)
        except FailedAttempt as failure:
            self.spending.failures += 1
            number = attempts.statistics["attempt_number"]
            raise failure.error(self._where, number, settings.api_key_variable) from None
        self.spending.add(answer.usage)
        return answer

    async def close(self) -> None:
        """Close the connections of the running event loop; ``asyncio.run`` does so at its end."""
        await self._clients.close()

    async def _attempt(self, fields: Mapping[str, Any], headers: Mapping[str, str] | None) -> Answer:
        client = await self._clients.get()
        async with client.slots:
            body = await self._body(client, fields, headers)
        try:
            return read_answer(body)
        except Unreadable as error:
            raise FailedAttempt(str(error), again=True) from error

    async def _body(self, client: Client, fields: Mapping[str, Any], headers: Mapping[str, str] | None) -> bytes:
        import openai

        seconds = self.settings.request_seconds
        try:
            async with asyncio.timeout(seconds):  # the client's own timeout begins anew with every byte
                create = client.http.chat.completions.with_raw_response.create
                response = await create(**fields, extra_headers=headers)
                return response.content
        except (TimeoutError, openai.APITimeoutError):
            raise FailedAttempt(f"no answer within {seconds:g} s", again=True) from None
        except openai.APIConnectionError as error:
            raise of_connection(error, self._key) from error
        except openai.APIStatusError as error:
            raise of_status(error.status_code, error.response.headers, error.body, self._key) from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        after = _failure(state).after
        if after is not None:
            return after
        jittered = tenacity.wait_exponential(multiplier=_FIRST_WAIT) + tenacity.wait_random(0, _FIRST_WAIT)
        return min(float(jittered(state)), self.settings.retry_seconds)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        too_long = (_failure(state).after or 0.0) > self.settings.retry_seconds
        return too_long or state.attempt_number >= self.settings.attempts

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        self.spending.retries += 1


def _failure(state: tenacity.RetryCallState) -> FailedAttempt:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, FailedAttempt)  # only these are tried again
    return error
