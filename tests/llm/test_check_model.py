"""What a dry run says of the language model, without a token."""

import asyncio
from pathlib import Path

import pytest
from asked_models import ask, good, model_of
from scripted_endpoint import Endpoint, refusal

from trace_jax.errors import UserError
from trace_jax.llm import EndpointRefused, EndpointUnreachable, LanguageModel, LanguageModelSettings, check_model


def check(served: Endpoint, record: Path, *, replay: bool = False, **changes: object) -> str:
    settings = {"url": served.url, "model": "m", **changes}
    return asyncio.run(check_model(LanguageModel(LanguageModelSettings(**settings)), record, replay=replay))


def test_model_record_and_budget_are_told_and_nothing_is_spent(served: Endpoint, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    served.reply = lambda body: good(usage=(90, 10))
    found = check(served, record)
    assert found == (f"{served.url}: model 'm': offered; 0 calls on file, which used 0 tokens; no budget of tokens")
    ask(model_of(served, record))
    assert "1 calls on file, which used 100 tokens; 400 of 500 tokens are left" in check(
        served, record, budget_tokens=500
    )
    assert len(served.bodies) == 1 and check(Endpoint(url=""), record, replay=True).startswith("model 'm', replayed")


def test_what_would_fail_later_is_told_now(served: Endpoint, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    with pytest.raises(UserError, match=r"has no model 'n': set llm\.model to one of its own \(m\)"):
        check(served, record, model="n")
    served.models = refusal(401, "bad key")
    with pytest.raises(EndpointRefused, match="set a valid API key"):
        check(served, record)
    with pytest.raises(EndpointUnreachable, match="no connection"):
        check(Endpoint(url="http://127.0.0.1:9/v1"), record)
    with pytest.raises(UserError, match=r"holds no call: unset llm\.replay"):
        check(Endpoint(url=""), record, replay=True)


@pytest.mark.parametrize("answer", [refusal(404), {"data": "?"}, {}], ids=["404", "odd", "empty"])
def test_an_endpoint_need_not_list_its_models(served: Endpoint, tmp_path: Path, answer: object) -> None:
    served.models = answer
    assert "not checked, since the endpoint lists no models" in check(served, tmp_path / "calls.jsonl")
