"""Calls on file: a second run costs nothing, a finished one is replayed without an endpoint, a killed one goes on."""

import asyncio
import logging
from pathlib import Path

import pytest
from asked_models import GOOD, Verdict, ask, good, hello, model_of, on_file
from pydantic import BaseModel, Field
from scripted_endpoint import Endpoint, endpoint, refusal, said

from trace_jax.contract.validate import validate
from trace_jax.errors import UserError
from trace_jax.llm import EndpointUnreachable, LLMError, NotRecorded, Prompt, PromptTooLong, usage_as_json, usage_table
from trace_jax.llm.forms import schema

NOWHERE = Endpoint(url="")


def test_every_call_is_on_file_with_prompt_answer_and_cost(served: Endpoint, tmp_path: Path) -> None:
    served.script = [said("what?", usage=(10, 2)), good(4, usage=(30, 5))]
    prices = {"prompt_price": 1.0, "completion_price": 4.0}
    ask(model_of(served, tmp_path / "calls.jsonl", **prices), seed=3)
    first, second = on_file(tmp_path / "calls.jsonl")
    assert validate(tmp_path / "calls.jsonl") == "2 model_call"
    assert (first.stage, first.prompt, first.prompt_version, first.seed) == ("judge", "hello", "1-00000000", 3)
    assert (first.form, first.form_in, first.model, first.answer) == ("Verdict", "response_format", "m", "what?")
    assert [message.content for message in first.messages] == ["s", "hello"] and len(second.messages) == 4
    assert second.form_in == "both" and second.answer == '{"name": "a", "score": 4}' and second.error is None
    assert (second.usage.prompt_tokens, second.usage.completion_tokens, second.charged_tokens) == (30, 5, 35)
    assert second.dollars == pytest.approx((30 * 1 + 5 * 4) / 1e6) and 0 < second.seconds < 10


def test_what_is_on_file_is_not_asked_again(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: good(body["seed"])
    record = tmp_path / "calls.jsonl"
    assert ask(model_of(served, record), seed=1).score == 1
    again = model_of(served, record)
    assert ask(again, seed=1).score == 1 and ask(again, seed=2).score == 2
    assert [body["seed"] for body in served.bodies] == [1, 2]
    assert again.usage()["judge"].from_file == 1 and again.usage()["judge"].requests == 2


@pytest.mark.parametrize(
    "changed",
    [{"text": "goodbye"}, {"seed": 2}, {"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_request_is_sent(served: Endpoint, tmp_path: Path, changed: dict) -> None:
    served.reply = lambda body: good()
    record = tmp_path / "calls.jsonl"
    ask(model_of(served, record))
    settings = {name: value for name, value in changed.items() if name not in ("text", "seed")}
    ask(model_of(served, record, **settings), **{name: changed[name] for name in changed if name in ("text", "seed")})
    assert len(served.bodies) == 2


def test_another_form_is_another_request(served: Endpoint, tmp_path: Path) -> None:
    class Other(BaseModel):
        name: str
        score: int = Field(ge=0, le=9)

    served.reply = lambda body: good()
    model = model_of(served, tmp_path / "calls.jsonl")
    ask(model)
    assert asyncio.run(model.ask(hello(), Other, stage="judge", seed=1)) == Other(**GOOD)
    Other.__name__ = "Verdict"
    assert len(served.bodies) == 2
    schema.cache_clear()
    asyncio.run(model.ask(hello(), Other, stage="judge", seed=1))
    assert len(served.bodies) == 3  # the same name, but another schema


def test_where_the_endpoint_is_makes_no_difference(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: good()
    ask(model_of(served, tmp_path / "calls.jsonl"))
    with endpoint() as other:
        ask(model_of(other, tmp_path / "calls.jsonl", max_tokens_field="max_completion_tokens", concurrency=2))
        assert not other.bodies


def test_a_finished_run_is_replayed_without_an_endpoint(served: Endpoint, tmp_path: Path) -> None:
    """A repair, a refused form, and a prompt that was too long come in it."""

    def reply(body: dict) -> object:
        if "long" in body["messages"][1]["content"]:
            return refusal(400, "too long", "context_length_exceeded")
        if "response_format" in body:
            return refusal(400, "no response_format")
        return good(body["seed"]) if len(body["messages"]) > 2 else said("hm")

    served.reply = reply
    record = tmp_path / "calls.jsonl"

    def run(model) -> list[int]:
        with pytest.raises(PromptTooLong):
            ask(model, text="a long prompt")
        return [ask(model, seed=seed).score for seed in (1, 2)]

    before = run(model_of(served, record))
    size, sent = record.stat().st_size, len(served.bodies)
    replayed = model_of(NOWHERE, record, replay=True)
    assert run(replayed) == before == [1, 2]
    assert record.stat().st_size == size and len(served.bodies) == sent


def test_a_replay_names_the_first_request_that_is_not_on_file(served: Endpoint, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    served.reply = lambda body: good()
    ask(model_of(served, record))
    replayed = model_of(served, record, replay=True)
    with pytest.raises(NotRecorded) as raised:
        ask(replayed, seed=2)
    words = f"{record}: no answer to the prompt hello 1-00000000 of stage judge, seed 2, model 'm' (request "
    assert str(raised.value).startswith(words) and "in version" not in str(raised.value)
    newer = Prompt("hello", "2-11111111", ({"role": "user", "content": "new"},))
    with pytest.raises(NotRecorded, match=r"the file has hello in version 1-00000000"):
        asyncio.run(replayed.ask(newer, Verdict, stage="judge", seed=1))
    with pytest.raises(NotRecorded, match="no file of calls is given"):
        ask(model_of(NOWHERE, replay=True))
    assert len(served.bodies) == 1


def test_an_endpoint_that_dies_in_mid_run_costs_only_what_is_left(tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    with endpoint() as dying:
        dying.reply = lambda body: good(body["seed"])
        model = model_of(dying, record, attempts=1)
        assert [ask(model, seed=seed).score for seed in (1, 2)] == [1, 2]
    with pytest.raises(EndpointUnreachable, match="no connection"):
        ask(model, seed=3)
    with endpoint() as next_day:
        next_day.reply = lambda body: good(body["seed"])
        model = model_of(next_day, record)
        assert [ask(model, seed=seed).score for seed in (1, 2, 3)] == [1, 2, 3]
        assert [body["seed"] for body in next_day.bodies] == [3]
    usage = model.usage()["judge"]
    assert (usage.requests, usage.failed, usage.from_file) == (4, 1, 2)


def test_a_torn_last_line_costs_its_own_call_alone(
    served: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / "calls.jsonl"
    served.reply = lambda body: good(body["seed"])
    model = model_of(served, record)
    for seed in (1, 2, 3):
        ask(model, seed=seed)
    record.write_bytes(record.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        model = model_of(served, record)
    assert "dropped a torn last line" in caplog.text
    assert [ask(model, seed=seed).score for seed in (1, 2, 3)] == [1, 2, 3]
    assert [body["seed"] for body in served.bodies] == [1, 2, 3, 3] and len(on_file(record)) == 3


def test_an_edited_line_is_refused_by_place(served: Endpoint, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    served.reply = lambda body: good(body["seed"])
    model = model_of(served, record)
    ask(model, seed=1)
    ask(model, seed=2)
    record.write_text(record.read_text().replace(r"\"score\": 1", r"\"score\": 9"))
    with pytest.raises(UserError, match=r"calls\.jsonl:1: sha256 is .* it was edited"):
        model_of(served, record)


def test_calls_at_one_time_are_whole_lines(served: Endpoint, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    served.delay, served.reply = 0.02, lambda body: good(usage=(body["seed"], 1))
    model = model_of(served, record)

    async def many() -> None:
        asks = (model.ask(hello("x" * 50_000), Verdict, stage="judge", seed=seed) for seed in range(1, 25))
        await asyncio.gather(*asks)

    asyncio.run(many())
    calls = on_file(record)
    assert len(calls) == 24 and {call.usage.prompt_tokens for call in calls} == set(range(1, 25))
    assert all(call.usage.prompt_tokens == call.seed for call in calls)


def test_tokens_and_dollars_are_told_by_stage(served: Endpoint, tmp_path: Path) -> None:
    served.reply = lambda body: good(usage=(100, 10))
    prices = {"prompt_price": 1.0, "completion_price": 2.0}
    model = model_of(served, tmp_path / "calls.jsonl", **prices)
    ask(model, seed=1, stage="discover")
    ask(model, seed=2, stage="label")
    ask(model, seed=3, stage="label")
    usage = usage_as_json(model_of(served, tmp_path / "calls.jsonl", **prices).usage())
    assert list(usage) == ["discover", "label", "all"]
    assert usage["label"]["prompt_tokens"] == 200 and usage["all"]["charged_tokens"] == 330
    assert usage["all"]["dollars"] == pytest.approx(360 / 1e6)
    header, _, *rows = usage_table(model.usage()).splitlines()
    assert header.startswith("| stage | requests |") and rows[1].startswith(
        "| label | 2 | 0 | 0 | 0 | 200 | 20 | 220 |"
    )
    ask(model_of(served, tmp_path / "calls.jsonl"), seed=4)
    unpriced = model_of(served, tmp_path / "calls.jsonl").usage()
    assert unpriced["all"].dollars is None and "| – |" in usage_table(unpriced).splitlines()[-1]


def test_a_failure_on_file_is_asked_again(served: Endpoint, tmp_path: Path) -> None:
    served.script = [refusal(400, "no such thing")] * 2
    with pytest.raises(LLMError):
        ask(model_of(served, tmp_path / "calls.jsonl"))
    served.reply = lambda body: good(6)
    assert ask(model_of(served, tmp_path / "calls.jsonl")).score == 6


def test_what_versions_of_pydantic_write_differently_does_not_count() -> None:
    class Titled(BaseModel):
        title: str = Field(title="Another title")

    class Plain(BaseModel):
        title: str

    assert (
        schema(Titled)
        == schema(Plain)
        == {
            "properties": {"title": {"type": "string"}},
            "required": ["title"],
            "type": "object",
        }
    )
