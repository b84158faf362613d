"""Answers of a form: a prompt and a pydantic model in, one value of that model out, or a refusal.

model = StructuredModel(LanguageModel(settings), record=workdir / "model_calls.jsonl", replay=settings.replay)
labels = await model.ask(prompt("trace_jax.analysis.llm", "label", text=text), Labels, stage="label", seed=7)
print(usage_table(model.usage()))
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from trace_jax.contract.digest import digest_of
from trace_jax.contract.llm import ModelCall, PromptMessage
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Usage
from trace_jax.llm.accounting import StageUsage, usage_by_stage
from trace_jax.llm.answer import Answer
from trace_jax.llm.budget import Budget, Charge, Cost, charged_to
from trace_jax.llm.errors import AnswerRefused, BudgetSpent, LLMError, PromptTooLong
from trace_jax.llm.forms import response_format, schema, schema_text
from trace_jax.llm.json_answer import bounded, read_form
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.prompts import Prompt
from trace_jax.llm.prompts import prompt as render
from trace_jax.llm.record import CallRecord
from trace_jax.llm.settings import check_endpoint
from trace_jax.llm.sharing import SharedRequests

T = TypeVar("T", bound=BaseModel)

_PACKAGE = "trace_jax.llm"
_FORM_REFUSED = (400, 422)  # what a server may answer that has no response_format, or not this one
_LONGEST_QUOTE = 20_000  # characters of a wrong answer that its repair repeats
_TOO_LONG = "prompt_too_long"

log = logging.getLogger(__name__)


def nothing(value: BaseModel) -> Sequence[str]:
    """The check that finds no fault."""
    return ()


@dataclass(frozen=True)
class _Request:
    """What is sent. ``call`` holds what is recorded of it whatever the answer is."""

    call: ModelCall
    form: type[BaseModel]


class StructuredModel:
    """Asks a language model for values of pydantic models, and keeps every request and answer on file.

    The form goes to the endpoint as ``response_format``. A server that does not keep to it gets the JSON Schema in the
    prompt as well from then on, and one that refuses it gets the JSON Schema in the prompt alone. An answer that is no
    JSON, does not fit the form, or has faults that ``check`` finds, gets one repair round.

    Args:
        record: JSON Lines of ``ModelCall``. Requests that it answers are not sent again, and its tokens count towards
            the budget of the settings. None: nothing is kept.
        earlier: records of other stages of the run. Their calls count towards the budget as well, as they stand when
            the first request is sent.
        replay: answer from ``record`` alone; no connection is ever opened.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        record: PathLike | None = None,
        earlier: Sequence[PathLike] = (),
        replay: bool = False,
    ) -> None:
        settings = model.settings
        if not replay:
            check_endpoint(settings.url, settings.model, settings.section)
        self._model, self._earlier, self._replay = model, earlier, replay
        self._calls = CallRecord(record)
        self._in_flight = SharedRequests[ModelCall]()
        self._refused: set[str] = set()  # names of forms that the endpoint refused as response_format
        self._stated: set[str] = set()  # of forms that it did not keep to, which stand in the prompt as well
        self._from_file: Counter[str] = Counter()

    async def ask(
        self,
        prompt: Prompt,
        form: type[T],
        *,
        stage: str,
        seed: int,
        check: Callable[[T], Sequence[str]] = nothing,
    ) -> T:
        """The answer to ``prompt`` as a ``form``.

        Args:
            stage: what the request is for, in the account of tokens.
            seed: of the endpoint's sampling; equal requests with equal seeds are sent once.
            check: the faults of a value, one sentence each, which the model is told.

        Raises AnswerRefused if the repaired answer is wrong as well, PromptTooLong, another LLMError if the endpoint
        does not answer, BudgetSpent before the budget is exceeded, and NotRecorded in a replay.
        """
        messages = tuple(
            PromptMessage(role=message["role"], content=self._model.mask(message["content"]))  # type: ignore[arg-type]
            for message in prompt.messages
        )
        request = self._request(prompt, form, stage, seed, messages)
        call = await self._answer(request)
        found = _read(call, form, check)
        if not isinstance(found, list):
            return found
        call = await self._answer(self._repair(prompt, request, call, found))
        found = _read(call, form, check)
        if not isinstance(found, list):
            return found
        raise AnswerRefused(
            f"{self._model.where}: prompt {prompt.name} {prompt.version}, stage {stage}, seed {seed}: the repaired "
            f"answer is wrong as well: {' '.join(found[:3])}",
            found,
        )

    def usage(self) -> dict[str, StageUsage]:
        """What all calls used, those of earlier starts included, by stage and in all."""
        return usage_by_stage(self._calls, self._from_file)

    async def close(self) -> None:
        """Close the file, and the connections of the running event loop."""
        self._calls.close()
        await self._model.close()

    @cached_property
    def _budget(self) -> Budget:
        records = [self._calls, *map(CallRecord, self._earlier)]
        charged = (charged_to(self._model.settings, call) for record in records for call in record)
        return Budget(self._model.settings, sum(charged, Cost()))

    def _request(
        self, prompt: Prompt, form: type[BaseModel], stage: str, seed: int, messages: tuple[PromptMessage, ...]
    ) -> _Request:
        settings = self._model.settings
        whole = {
            "model": settings.model,
            "messages": [message.model_dump() for message in messages],
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": seed,
            "form": form.__name__,
            "schema": schema(form),
        }
        call = ModelCall(
            key=digest_of(whole),
            stage=stage,
            prompt=prompt.name,
            prompt_version=prompt.version,
            seed=seed,
            form=form.__name__,
            form_in="response_format",
            model=settings.model,
            messages=messages,
            error="not sent",
        )
        return _Request(call, form)

    def _repair(self, prompt: Prompt, request: _Request, wrong: ModelCall, faults: Sequence[str]) -> _Request:
        """The request that shows the model its answer and what is wrong with it."""
        stated = render(_PACKAGE, "repair", faults=faults, schema=schema_text(request.form))
        answer = PromptMessage(role="assistant", content=(wrong.answer or "(nothing)")[:_LONGEST_QUOTE])
        told = PromptMessage(role="user", content=self._model.mask(stated.messages[0]["content"]))
        messages = (*request.call.messages, answer, told)
        repair = self._request(prompt, request.form, request.call.stage, request.call.seed, messages)
        return _Request(repair.call.model_copy(update={"repair": stated.version}), request.form)

    async def _answer(self, request: _Request) -> ModelCall:
        """The answered call: from the file, from an equal request in flight, or from the endpoint."""
        call = request.call
        found = self._calls.find(call.key)
        if found is not None and (found.answer is not None or self._replay):
            self._from_file[call.stage] += 1
            if found.answer is None:
                kind = PromptTooLong if found.error_code == _TOO_LONG else LLMError
                raise kind(f"{found.error} (replayed)")
            return found
        if self._replay:
            raise self._calls.missing(call)
        return await self._in_flight.run(call.key, lambda: self._send(request))

    async def _send(self, request: _Request) -> ModelCall:
        """The answer of the endpoint, which is told the form in the way that it understands."""
        name = request.form.__name__
        if name not in self._refused:
            try:
                call = await self._attempt(request, as_format=True, stated=name in self._stated)
            except LLMError as error:
                if isinstance(error, PromptTooLong) or error.status not in _FORM_REFUSED:
                    raise
            else:
                if call.finish_reason != "length" and isinstance(read_form(call.answer or "", request.form), list):
                    self._stated.add(name)
                return call
        call = await self._attempt(request, as_format=False, stated=True)
        if name not in self._refused:
            log.info("%s: refuses the form %s as response_format: it stands in the prompt", self._model.where, name)
            self._refused.add(name)
        return call

    async def _attempt(self, request: _Request, *, as_format: bool, stated: bool) -> ModelCall:
        """One request, recorded. The form goes as ``response_format``, stands in the prompt, or both."""
        messages = [message.model_dump() for message in request.call.messages]
        if request.call.repair is not None:
            stated = True  # by the repair itself
        elif stated:
            text = render(_PACKAGE, "schema", schema=schema_text(request.form)).messages[0]["content"]
            messages[-1]["content"] += f"\n\n{text}"
        form_in = ("both" if stated else "response_format") if as_format else "prompt"
        given = response_format(request.form)
        bound = self._budget.bound(messages, given)
        started = time.monotonic()
        async with self._budget.charged(request.call.stage, bound) as charge:
            try:
                answer = await self._model.complete(
                    messages,
                    seed=request.call.seed,
                    response_format=given if as_format else None,
                    on_lost=charge.lose,
                )
            except (LLMError, BudgetSpent) as error:
                code = _TOO_LONG if isinstance(error, PromptTooLong) else type(error).__name__
                self._keep(request, charge, started, form_in=form_in, error=str(error), error_code=code)
                raise
            charge.settle(answer.usage)
        return self._keep(request, charge, started, form_in=form_in, error=None, **_answered(answer))

    def _keep(self, request: _Request, charge: Charge, started: float, **found: Any) -> ModelCall:
        """Record the call with what it cost."""
        dollars = charge.cost.dollars if self._budget.dollars_known else None
        seconds = time.monotonic() - started
        call = request.call.replace(charged_tokens=charge.cost.tokens, dollars=dollars, seconds=seconds, **found)
        self._calls.add(call)
        return call


def _answered(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens) if usage else None,
    }


def _read(call: ModelCall, form: type[T], check: Callable[[T], Sequence[str]]) -> T | list[str]:
    """The value, or its faults."""
    found = read_form(call.answer or "", form)
    if not isinstance(found, list):
        faults = list(check(found))
        return bounded(faults) if faults else found
    if call.finish_reason == "length":
        return bounded(["The answer was cut off because it was too long: write a shorter one.", *found])
    return bounded(found)
