"""One language model behind an OpenAI-compatible endpoint."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import tenacity

from trace_jax.llm.answer import Answer, Unreadable, read_answer, read_models
from trace_jax.llm.clients import Client, Clients, api_key
from trace_jax.llm.failures import FailedAttempt, of_connection, of_status, of_timeout
from trace_jax.llm.settings import LanguageModelSettings, check_endpoint
from trace_jax.llm.spending import Spending

_MOST_BYTES = 64 << 20  # of one answer
_FIRST_WAIT = 0.5  # seconds; doubled at each further attempt
_SHORTEST_KEY = 8  # characters; shorter keys are words of servers without keys, such as "EMPTY"


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
        where: URL and model, for messages.
    """

    def __init__(
        self, settings: LanguageModelSettings, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.settings, self.spending = settings, Spending()
        self._key = api_key(settings.api_key_variable)
        self._clients, self._sleep = Clients(settings, self._key), sleep
        self.where = f"{settings.url or 'no endpoint'}: model {settings.model!r}"

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        headers: Mapping[str, str] | None = None,
        response_format: Mapping[str, Any] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Answer:
        """The answer to ``messages``, which are OpenAI's message objects, as ``tools`` are its tool objects.

        ``temperature`` and ``max_tokens`` replace those of the settings. ``on_lost`` is called after each attempt whose
        answer did not arrive although the endpoint may charge for it; what it raises ends the request.

        Raises LLMError, EndpointRefused for what only a user can mend, EndpointUnreachable if there is no connection,
        and PromptTooLong.
        """
        settings = self.settings
        check_endpoint(settings.url, settings.model, settings.section)
        limit = settings.max_tokens if max_tokens is None else max_tokens
        fields = {
            "model": settings.model,
            "messages": list(messages),
            "tools": list(tools) or None,
            "seed": seed,
            "temperature": settings.temperature if temperature is None else temperature,
            settings.max_tokens_field: limit,
            "response_format": response_format,
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
            answer: Answer = await attempts(self._attempt, given, headers, on_lost)
        except FailedAttempt as failure:
            self.spending.failures += 1
            number = attempts.statistics["attempt_number"]
            raise failure.error(self.where, number, settings.api_key_variable) from None
        self.spending.add(answer.usage)
        return answer

    async def models(self) -> list[str] | None:
        """Names of the models that the endpoint offers; None if it does not list them. Costs no tokens.

        Raises EndpointRefused, EndpointUnreachable or another LLMError after one attempt.
        """
        settings = self.settings
        check_endpoint(settings.url, settings.model, settings.section)
        client = await self._clients.get()
        try:
            with self._failures():
                async with asyncio.timeout(settings.request_seconds):
                    listed = await client.http.models.with_raw_response.list()
        except FailedAttempt as failure:
            if failure.status in (404, 405, 501):
                return None
            raise failure.error(self.where, 1, settings.api_key_variable) from None
        return read_models(listed.content)

    async def close(self) -> None:
        """Close the connections of the running event loop; ``asyncio.run`` does so at its end."""
        await self._clients.close()

    def mask(self, text: str) -> str:
        """``text`` without the API key, whoever wrote it there."""
        return text.replace(self._key, "***") if len(self._key) >= _SHORTEST_KEY else text

    async def _attempt(
        self, fields: Mapping[str, Any], headers: Mapping[str, str] | None, on_lost: Callable[[], None] | None
    ) -> Answer:
        try:
            client = await self._clients.get()
            async with client.slots:
                body = await self._body(client, fields, headers)
            return self._answer(body)
        except FailedAttempt as failure:
            if failure.answered and on_lost is not None:
                on_lost()
            raise

    def _answer(self, body: bytes) -> Answer:
        try:
            answer = read_answer(body)
        except Unreadable as error:
            raise FailedAttempt(str(error), again=True, answered=True) from error
        calls = tuple(replace(call, arguments=self.mask(call.arguments)) for call in answer.calls)
        return replace(answer, text=self.mask(answer.text), reasoning=self.mask(answer.reasoning), calls=calls)

    async def _body(self, client: Client, fields: Mapping[str, Any], headers: Mapping[str, str] | None) -> bytes:
        with self._failures():
            async with asyncio.timeout(self.settings.request_seconds):  # the client's own begins anew with every byte
                create = client.http.chat.completions.with_streaming_response.create
                async with create(**fields, extra_headers=headers) as response:
                    body = bytearray()
                    async for piece in response.iter_bytes():
                        body += piece
                        if len(body) > _MOST_BYTES:
                            raise FailedAttempt(
                                f"an answer of more than {_MOST_BYTES} bytes", again=False, answered=True
                            )
                    return bytes(body)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns the client's errors into FailedAttempt."""
        import openai

        try:
            yield
        except (TimeoutError, openai.APITimeoutError) as error:
            raise of_timeout(error, self.settings) from None
        except openai.APIConnectionError as error:
            raise of_connection(error, self._key) from error
        except openai.APIStatusError as error:
            raise of_status(error.status_code, error.response.headers, error.body, self._key) from error
        except Exception as error:  # while a body is read, errors of the transport come as they are
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if "TimeoutException" in kinds:
                raise of_timeout(error, self.settings) from None
            if "RequestError" in kinds:
                raise of_connection(error, self._key) from error
            raise

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
