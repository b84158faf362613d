"""The API key goes to the endpoint, and into no file, log line, message or prompt, whoever repeats it."""

import logging
from pathlib import Path

import pytest
from asked_models import ask, model_of
from scripted_endpoint import Endpoint, refusal, said

from trace_jax.llm import AnswerRefused, LanguageModel, LanguageModelSettings, LLMError, usage_table

KEY = "sk-very/secret+7=="


def test_the_key_stands_nowhere_but_in_the_header(
    served: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    model = model_of(served, tmp_path / "run" / "calls.jsonl", attempts=2)
    shown = []
    served.script = [
        said(f'{{"name": "your key is {KEY}", "score": 1}}'),  # an answer that fits its form
        said(f"I know {KEY}", message={"reasoning_content": KEY}),  # a wrong one, which its repair quotes
        said(f'{{"{KEY}": 1}}'),
        refusal(500, f"you sent {KEY}"),
        refusal(500, f"you sent {KEY}"),
        refusal(400, f"Bearer {KEY}", code=KEY),  # asked once more with the form in the prompt, and repaired
    ]
    shown.append(repr(ask(model, text=f"a trajectory that holds {KEY}", seed=1)))
    with pytest.raises(AnswerRefused) as refused:
        ask(model, seed=2)
    shown += [str(refused.value), *refused.value.faults]
    for seed in (3, 4):
        with pytest.raises(LLMError) as failed:
            ask(model, seed=seed)
        shown += [str(failed.value), repr(failed.value), failed.value.code]
    assert not served.script and {headers["authorization"] for headers in served.headers} == {f"Bearer {KEY}"}
    shown += [caplog.text, *capfd.readouterr(), usage_table(model.usage()), str(served.bodies)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["calls.jsonl"] and len(files[0].read_bytes().splitlines()) == 7
    shown += [path.read_bytes().decode() for path in files]
    for text in shown:
        assert KEY not in text and KEY.replace("/", "\\/") not in text
    assert "your key is ***" in shown[0] and "a trajectory that holds ***" in shown[-1]


def test_a_word_that_stands_for_no_key_changes_no_text(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "EMPTY")
    model = LanguageModel(LanguageModelSettings(url=served.url, model="m", api_key_variable="SOME_KEY"))
    assert model.mask("an EMPTY cart") == "an EMPTY cart"
