"""Answers of a form: how the form is stated, what is repaired, what is refused, and what an endpoint may do to it."""

import asyncio
import json
from pathlib import Path

import pytest
from asked_models import GOOD, Verdict, ask, good, hello, model_of, on_file
from scripted_endpoint import Endpoint, dripping, dying, raw, refusal, said, slow

from trace_jax.errors import UserError
from trace_jax.llm import AnswerRefused, EndpointRefused, EndpointUnreachable, LLMError, PromptTooLong


def stated(body: dict) -> bool:
    """Whether the JSON Schema stands in the prompt."""
    return '"properties"' in body["messages"][-1]["content"]


def test_the_form_goes_as_a_strict_schema_and_the_answer_is_its_value(served: Endpoint) -> None:
    served.script = [good(7)]
    assert ask(model_of(served, max_tokens=50), seed=9) == Verdict(name="a", score=7)
    (body,) = served.bodies
    form = body["response_format"]["json_schema"]
    assert form["name"] == "Verdict" and form["strict"] is True
    assert form["schema"]["required"] == ["name", "score"] and form["schema"]["additionalProperties"] is False
    assert body["seed"] == 9 and body["max_tokens"] == 50 and not stated(body)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    "fault",
    [refusal(429), refusal(500), raw(b'{"choices": ['), dying(good()), 5.0],
    ids=["429", "500", "truncated", "dies in mid-answer", "hangs"],
)
def test_a_passing_fault_is_outlived(served: Endpoint, fault: object) -> None:
    served.script = [fault, good(5)]
    assert ask(model_of(served, request_seconds=2.0)).score == 5
    assert len(served.bodies) == 2


@pytest.mark.parametrize(
    "wrong,fault",
    [
        ("I cannot help with that.", "The answer holds no JSON object"),
        ('{"name": "a"}', "score: Field required."),
        ('{"name": "a", "score": 11}', "score: Input should be less than or equal to 10."),
        ('{"name": "a", "score": 3', "The answer holds no JSON object"),
        ('["a", 3]', "The answer holds no JSON object"),
        ("", "The answer holds no JSON object"),
    ],
    ids=["refusal", "missing", "out of bounds", "truncated", "no object", "empty"],
)
def test_a_wrong_answer_gets_one_repair_round_that_names_the_fault(served: Endpoint, wrong: str, fault: str) -> None:
    served.script = [said(wrong), good(8)]
    assert ask(model_of(served)).score == 8
    first, second = served.bodies
    *before, answer, told = second["messages"]
    assert before == first["messages"] and answer == {"role": "assistant", "content": wrong or "(nothing)"}
    assert told["role"] == "user" and f"- {fault}" in told["content"] and stated(second)


def test_a_second_wrong_answer_is_refused_by_name(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: said('{"name": 5}')
    with pytest.raises(AnswerRefused) as raised:
        ask(model_of(served, tmp_path / "calls.jsonl"))
    assert len(served.bodies) == 2 and isinstance(raised.value, LLMError)
    assert raised.value.faults == ("name: Input should be a valid string.", "score: Field required.")
    words = "model 'm': prompt hello 1-00000000, stage judge, seed 1: the repaired answer is wrong as well: name: "
    assert words in str(raised.value) and "\n" not in str(raised.value)
    first, second = on_file(tmp_path / "calls.jsonl")
    assert first.repair is None and second.repair is not None and second.repair.startswith("1-")


def test_the_faults_of_a_check_are_told_and_bounded(served: Endpoint) -> None:
    seen: list[Verdict] = []

    def check(value: Verdict) -> list[str]:
        seen.append(value)
        return [f"Fault {n} {'x' * 400}." for n in range(30)] if value.score < 5 else []

    served.script = [good(1), good(6)]
    assert ask(model_of(served), check=check).score == 6
    told = served.bodies[1]["messages"][-1]["content"]
    assert "- Fault 9" in told and "Fault 10" not in told and "There are 20 more faults." in told and len(told) < 5000
    assert [value.score for value in seen] == [1, 6]


def test_an_answer_that_was_cut_off_is_told_so(served: Endpoint) -> None:
    served.script = [said('{"name": "aaa', finish_reason="length"), good()]
    ask(model_of(served))
    assert "- The answer was cut off because it was too long" in served.bodies[1]["messages"][-1]["content"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_response_format_is_remembered(served: Endpoint, status: int) -> None:
    def reply(body: dict) -> object:
        return refusal(status, "unknown field response_format") if "response_format" in body else good()

    served.reply = reply
    model = model_of(served)
    assert ask(model, seed=1) == ask(model, seed=2) == Verdict(**GOOD)
    assert ["response_format" in body for body in served.bodies] == [True, False, False]
    assert [stated(body) for body in served.bodies] == [False, True, True]


def test_a_bad_request_of_another_kind_is_not_blamed_on_the_form(served: Endpoint) -> None:
    served.script = [refusal(400, "no such seed"), refusal(400, "no such seed")]
    model = model_of(served)
    with pytest.raises(LLMError, match="status 400: no such seed"):
        ask(model)
    assert len(served.bodies) == 2
    served.reply = lambda body: good()
    ask(model, seed=2)
    assert "response_format" in served.bodies[2]


def test_a_server_that_does_not_keep_to_the_form_gets_it_in_the_prompt(served: Endpoint) -> None:
    served.script = [said('{"verdict": "a"}'), good(), good()]
    model = model_of(served)
    ask(model, seed=1)
    ask(model, seed=2)
    assert ["response_format" in body for body in served.bodies] == [True, True, True]
    assert [stated(body) for body in served.bodies] == [False, True, True]


@pytest.mark.parametrize(
    "fault",
    [
        refusal(400, "too long", "context_length_exceeded"),
        refusal(400, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"),
        refusal(400, "The input (9000 tokens) is longer than the model's context length (4096 tokens)."),
        refusal(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        refusal(413, "too many tokens"),
    ],
    ids=["openai", "vllm", "sglang", "anthropic", "413"],
)
def test_a_prompt_that_is_too_long_is_told_apart_and_sent_once(served: Endpoint, fault: object) -> None:
    served.reply = lambda body: fault
    with pytest.raises(PromptTooLong):
        ask(model_of(served))
    assert len(served.bodies) == 1


def test_timeouts_are_told_apart(served: Endpoint) -> None:
    once = {"attempts": 1}
    served.script = [slow(good(4), 1.5)]
    assert ask(model_of(served, read_seconds=1.0, **once)).score == 4
    served.script = [5.0]
    with pytest.raises(LLMError, match=r"the endpoint was silent for 0\.2 s"):
        ask(model_of(served, read_seconds=0.2, **once))
    served.script = [dripping()]
    with pytest.raises(LLMError, match=r"no whole answer within 1 s"):
        ask(model_of(served, read_seconds=0.7, request_seconds=1.0, **once))


def test_a_connection_that_is_never_made_is_told_apart() -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for held in waiting:  # fill its queue: who comes now gets no answer at all
            held.setblocking(False)
            held.connect_ex(address)
        served = Endpoint(url=f"http://127.0.0.1:{address[1]}/v1")
        with pytest.raises(EndpointUnreachable, match=r"no connection within 0\.2 s"):
            ask(model_of(served, connect_seconds=0.2, attempts=1))
        for held in waiting:
            held.close()


def test_equal_requests_in_flight_are_one(served: Endpoint) -> None:
    served.delay = 0.1
    served.reply = lambda body: good(body["seed"])
    model = model_of(served)

    async def many() -> list[Verdict]:
        asks = [model.ask(hello(), Verdict, stage="judge", seed=seed) for seed in (1, 1, 2, 1)]
        return list(await asyncio.gather(*asks))

    assert [found.score for found in asyncio.run(many())] == [1, 1, 2, 1]
    assert sorted(body["seed"] for body in served.bodies) == [1, 2]


def test_who_is_cancelled_takes_the_answer_from_nobody(served: Endpoint) -> None:
    served.delay = 0.2
    model = model_of(served)
    served.reply = lambda body: good()

    async def both() -> Verdict:
        impatient = asyncio.create_task(model.ask(hello(), Verdict, stage="judge", seed=1))
        await asyncio.sleep(0.05)
        patient = asyncio.create_task(model.ask(hello(), Verdict, stage="judge", seed=1))
        await asyncio.sleep(0.05)
        impatient.cancel()
        return await patient

    assert asyncio.run(both()) == Verdict(**GOOD)
    assert len(served.bodies) == 1


def test_no_more_are_in_flight_than_was_said(served: Endpoint) -> None:
    served.delay, served.reply = 0.05, lambda body: good()
    model = model_of(served, concurrency=2)

    async def many() -> None:
        await asyncio.gather(*(model.ask(hello(), Verdict, stage="judge", seed=seed) for seed in range(6)))

    asyncio.run(many())
    assert served.most == 2 and len(served.bodies) == 6


def test_a_model_needs_an_endpoint_unless_it_replays(tmp_path: Path) -> None:
    nowhere = Endpoint(url="")
    with pytest.raises(UserError, match=r"^llm\.url '' names no endpoint"):
        model_of(nowhere)
    model_of(nowhere, tmp_path / "calls.jsonl", replay=True)


def test_a_refused_key_ends_it_at_once(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: refusal(401, "bad key")
    with pytest.raises(EndpointRefused, match=r"set a valid API key in \$SOME_KEY"):
        ask(model_of(served, tmp_path / "calls.jsonl"))
    assert len(served.bodies) == 1
    (call,) = on_file(tmp_path / "calls.jsonl")
    assert call.answer is None and call.error_code == "EndpointRefused" and json.loads(call.model_dump_json())
