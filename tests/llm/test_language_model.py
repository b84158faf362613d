"""Requests to an endpoint with faults: which are sent again and when, what is counted, and what a user reads."""

import asyncio
import email.utils
import json
import logging
import time

import pytest
from scripted_endpoint import Endpoint, dripping, endless, raw, refusal, said

from trace_jax.errors import EngineError, UserError
from trace_jax.llm import (
    Answer,
    EndpointRefused,
    EndpointUnreachable,
    FunctionCall,
    LanguageModel,
    LanguageModelSettings,
    LLMError,
    TokenUsage,
)

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret-7"


def settings(served: Endpoint, **changes: object) -> LanguageModelSettings:
    quick = {"url": served.url, "model": "m", "retry_seconds": 0.02, "attempts": 3, "api_key_variable": "SOME_KEY"}
    return LanguageModelSettings(**{**quick, **changes})


def ask(model: LanguageModel, **changes: object) -> Answer:
    return asyncio.run(model.complete(HELLO, **changes))


def test_a_request_has_what_was_given_and_nothing_else(served: Endpoint) -> None:
    model = LanguageModel(settings(served, temperature=0.5, max_tokens=9))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ask(model, seed=4, tools=[tool], headers={"X-Trace-Conversation": "c"})
    ask(model, temperature=0.0, max_tokens=5)
    ask(LanguageModel(settings(served, max_tokens=8, max_tokens_field="max_completion_tokens")))
    common = {"model": "m", "messages": HELLO}
    assert served.bodies == [
        {**common, "seed": 4, "temperature": 0.5, "max_tokens": 9, "tools": [tool]},
        {**common, "temperature": 0.0, "max_tokens": 5},
        {**common, "max_completion_tokens": 8},
    ]
    assert served.headers[0]["x-trace-conversation"] == "c"


def test_an_answer_is_read_whole(served: Endpoint) -> None:
    thinking = {"reasoning_content": "hm"}
    served.script = [said(None, calls=[("add", '{"a": 1'), ("add", {"a": 2})], usage=(11, 5), message=thinking)]
    calls = (FunctionCall("c0", "add", '{"a": 1'), FunctionCall("c1", "add", '{"a": 2}'))
    assert ask(LanguageModel(settings(served))) == Answer("", calls, "hm", "tool_calls", TokenUsage(11, 5))


@pytest.mark.parametrize(
    "message,text",
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}, "a"),
        ({"content": None, "refusal": "I will not"}, "I will not"),
        ({"content": "half \ud83d"}, "half �"),
        ({"content": None}, ""),
        ({"tool_calls": None, "content": "x", "annotations": [1]}, "x"),
    ],
)
def test_odd_messages_are_text(served: Endpoint, message: dict, text: str) -> None:
    body = json.dumps({"choices": [{"message": message, "finish_reason": None}]}).encode()
    served.script = [raw(body)]
    assert ask(LanguageModel(settings(served))) == Answer(text, (), "", "stop", None)


@pytest.mark.parametrize(
    "fault",
    [
        refusal(429),
        refusal(500),
        refusal(503, "busy"),
        refusal(408),
        raw(b'{"choices": ['),
        raw(b"<html>gateway</html>", 502),
        raw(b'{"choices": []}'),
        raw(b'{"choices": [{"message": {"content": 7}}]}'),
        raw(b"[" * 100_000),
        raw(b"\xff\xfe"),
        raw(b""),
        0.5,
    ],
    ids=["429", "500", "503", "408", "torn", "html", "empty", "number", "nested", "bytes", "nothing", "hang"],
)
def test_a_passing_fault_is_tried_again(served: Endpoint, fault: object) -> None:
    model = LanguageModel(settings(served, request_seconds=0.25))
    served.script = [fault, fault, said("at last")]
    assert ask(model, seed=3).text == "at last"
    assert len(served.bodies) == 3 and len({str(body) for body in served.bodies}) == 1
    assert (model.spending.answers, model.spending.retries, model.spending.failures) == (1, 2, 0)


@pytest.mark.parametrize(
    "fault,status,words",
    [
        (refusal(429, "slow\ndown"), 429, "status 429 after 3 attempts: slow down: lower the concurrency"),
        (refusal(500, ""), 500, "status 500 after 3 attempts: no reason is given"),
        (raw(b'{"choices": []}'), None, "the body is no chat completion (choices: List should have at least 1 item"),
        (raw(b"{"), None, "the body is no JSON that can be read (1 bytes) after 3 attempts"),
        (0.5, None, "no whole answer within 0.25 s after 3 attempts"),
    ],
)
def test_a_lasting_fault_ends_in_one_line(served: Endpoint, fault: object, status: int | None, words: str) -> None:
    model = LanguageModel(settings(served, request_seconds=0.25))
    served.reply = lambda body: fault
    with pytest.raises(LLMError) as raised:
        ask(model)
    assert str(raised.value).startswith(f"{served.url}: model 'm': ") and words in str(raised.value)
    assert "\n" not in str(raised.value) and raised.value.status == status and isinstance(raised.value, EngineError)
    assert not isinstance(raised.value, EndpointRefused | EndpointUnreachable)
    assert (model.spending.answers, model.spending.retries, model.spending.failures) == (0, 2, 1)


def test_an_answer_that_drips_has_no_more_time_than_one_that_hangs(served: Endpoint) -> None:
    served.reply = lambda body: dripping()
    started = time.monotonic()
    with pytest.raises(LLMError, match=r"no whole answer within 0\.5 s after 2 attempts"):
        ask(LanguageModel(settings(served, request_seconds=0.5, attempts=2)))
    assert time.monotonic() - started < 20


def test_an_answer_without_end_fills_no_memory(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trace_jax.llm.model._MOST_BYTES", 5 << 20)
    served.reply = lambda body: endless()
    with pytest.raises(LLMError, match="an answer of more than 5242880 bytes"):
        ask(LanguageModel(settings(served)))
    assert len(served.bodies) == 1


@pytest.mark.parametrize(
    "fault,words",
    [
        (refusal(401, "bad key"), "status 401: bad key: set a valid API key in $SOME_KEY"),
        (refusal(403), "may use this model"),
        (refusal(404, "no model m"), "status 404: no model m: correct the URL, which usually ends with /v1"),
        (refusal(429, "quota", "insufficient_quota"), "status 429: quota: add credit"),
    ],
)
def test_what_a_user_must_mend_is_sent_once(served: Endpoint, fault: object, words: str) -> None:
    served.script = [fault]
    with pytest.raises(EndpointRefused) as raised:
        ask(LanguageModel(settings(served)))
    assert words in str(raised.value) and len(served.bodies) == 1


def test_a_bad_request_is_sent_once_and_is_no_refusal_of_all(served: Endpoint) -> None:
    served.script = [refusal(400, "too long", "context_length_exceeded")]
    with pytest.raises(LLMError) as raised:
        ask(LanguageModel(settings(served)))
    assert raised.value.code == "context_length_exceeded" and len(served.bodies) == 1
    assert not isinstance(raised.value, EndpointRefused)


def test_an_endpoint_that_is_away_is_told_apart() -> None:
    model = LanguageModel(settings(Endpoint(url="http://127.0.0.1:9/v1")))
    with pytest.raises(EndpointUnreachable, match=r"^http://127.0.0.1:9/v1: model 'm': no connection .* 3 attempts"):
        ask(model)
    assert model.spending.retries == 2


def waits(served: Endpoint, header: str) -> list[float]:
    """The waits between attempts of one request, the first of which is told ``header``."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    served.script = [refusal(429, Retry_After=header), refusal(503), said("x")]
    asyncio.run(LanguageModel(settings(served, retry_seconds=30.0), sleep=sleep).complete(HELLO))
    return slept


def test_retry_after_is_kept_as_seconds_and_as_a_date(served: Endpoint) -> None:
    first, second = waits(served, "7")
    assert first == 7.0 and 0.5 <= second <= 2.5
    first, _ = waits(served, email.utils.formatdate(time.time() + 20, usegmt=True))
    assert 17 < first <= 20
    for odd in ("soon", "nan", "-5", "inf", ""):
        assert waits(served, odd)[0] <= 2.5


def test_a_wait_beyond_the_bound_ends_it_at_once(served: Endpoint) -> None:
    served.script = [refusal(429, "come back tomorrow", Retry_After="86400")]
    started = time.monotonic()
    with pytest.raises(LLMError, match="status 429: come back tomorrow"):
        asyncio.run(asyncio.wait_for(LanguageModel(settings(served)).complete(HELLO), 5.0))
    assert time.monotonic() - started < 5 and len(served.bodies) == 1


def test_usage_is_summed_and_what_is_unknown_is_no_zero(served: Endpoint) -> None:
    model = LanguageModel(settings(served, prompt_price=2.0, completion_price=10.0))
    counts = [
        (100, 10),
        None,
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": None},
        "many",
        (200, 20),
    ]
    served.script = [said("x", usage=usage) for usage in counts]
    usages = [ask(model).usage for _ in counts]
    assert usages == [TokenUsage(100, 10), None, None, None, None, TokenUsage(200, 20)]
    spent = model.spending
    assert (spent.answers, spent.unknown, spent.prompt_tokens, spent.completion_tokens) == (6, 4, 300, 30)
    assert spent.dollars(model.settings) == pytest.approx((300 * 2 + 30 * 10) / 1e6)
    assert spent.dollars(settings(served, prompt_price=2.0)) is None
    assert spent.as_json(settings(served))["dollars"] is None and spent.as_json(settings(served))["unknown"] == 4


def test_no_more_are_in_flight_than_was_said_and_a_model_outlives_its_loop(served: Endpoint) -> None:
    model, served.delay = LanguageModel(settings(served, concurrency=3)), 0.05

    async def many() -> None:
        await asyncio.gather(*(model.complete(HELLO) for _ in range(12)))

    asyncio.run(many())
    assert served.most == 3
    asyncio.run(many())
    assert model.spending.answers == 24


def test_a_wait_holds_no_slot(served: Endpoint) -> None:
    model = LanguageModel(settings(served, concurrency=1, retry_seconds=5.0))
    served.script = [refusal(429, Retry_After="1")]

    async def both() -> list[str]:
        ended: list[str] = []

        async def named(name: str) -> None:
            await model.complete([{"role": "user", "content": name}])
            ended.append(name)

        first = asyncio.create_task(named("first"))
        while not served.bodies:
            await asyncio.sleep(0.01)
        await named("second")
        await first
        return ended

    assert asyncio.run(both()) == ["second", "first"]


def test_the_key_is_sent_and_stands_nowhere_else(
    served: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    model = LanguageModel(settings(served))
    served.script = [refusal(400, f"you sent Bearer {KEY}")]
    with pytest.raises(LLMError) as raised:
        ask(model)
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "you sent Bearer ***" in str(raised.value)
    shown = f"{raised.value!r} {model.settings!r} {model.spending.as_json(model.settings)} {caplog.text}"
    assert KEY not in shown
    monkeypatch.delenv("SOME_KEY")
    ask(LanguageModel(settings(served)))
    assert served.headers[1]["authorization"] == "Bearer none"
    monkeypatch.setenv("SOME_KEY", f"{KEY}\nX: y")
    with pytest.raises(UserError, match=r"^\$SOME_KEY holds no API key") as refused:
        LanguageModel(settings(served))
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://", "http://x:y/v1", "http://x/v1?k=1", "http://x/ v1", "x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"^llm\.url .* names no endpoint"):
        LanguageModelSettings(url=url, model="m")


def test_credentials_in_a_url_are_refused_and_not_quoted() -> None:
    with pytest.raises(UserError, match="llm.url holds credentials") as raised:
        LanguageModelSettings(url="http://me:hunter2@x/v1", model="m")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(UserError, match="llm.model is empty"):
        LanguageModelSettings(url="http://x/v1", model=" ")


def test_a_model_without_an_endpoint_says_so_when_it_is_asked() -> None:
    with pytest.raises(UserError, match=r"^llm\.url '' names no endpoint"):
        ask(LanguageModel(LanguageModelSettings(model="m")))
