"""JSON in what models write: where it is found, and that nothing they write takes long or raises."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from trace_jax.llm.json_answer import bounded, read_form


class Pair(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    items: tuple[int, ...] = ()


FOUND = Pair(name="a", items=(1, 2))
TEXT = '{"name": "a", "items": [1, 2]}'


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"  \n{TEXT}\n",
        f"```json\n{TEXT}\n```",
        f"Sure! Here it is:\n```\n{TEXT}\n```\nAnything else?",
        f"Here: {TEXT} and that is all {{name}}.",
        f'<think>\nPerhaps {{"name": "b"}}?\n</think>\n{TEXT}',
        f'Perhaps {{"name": "b"}}?\n</think>\n{TEXT}',
        f'```json\n{{"name": 3}}\n```\nNo:\n```json\n{TEXT}\n```',
        f'{{"name": 3}} is wrong, rather {TEXT}',
        f"\ufeff{TEXT}",
        f"{{{TEXT}",
    ],
)
def test_an_object_is_found(text: str) -> None:
    assert read_form(text, Pair) == FOUND


@pytest.mark.parametrize(
    "text,fault",
    [
        ("", "no JSON object"),
        ("I cannot help with that.", "no JSON object"),
        ("<think>" + TEXT, None),
        ('{"name": "a", "items": [1,', "no JSON object"),
        ('{"name": "a", "more": 1}', "more: Extra inputs are not permitted."),
        ('{"name": "a", "items": [NaN]}', "items.0: Input should be a valid integer."),
        ("[" * 100_000, "no JSON object"),
        ('{"name":' * 100_000, "no JSON object"),
        ('{"items": [' + "1" * 5000 + "]}", "name: Field required."),
    ],
)
def test_what_is_none_is_told(text: str, fault: str | None) -> None:
    found = read_form(text, Pair)
    if fault is None:
        assert found == FOUND  # thinking that was cut off before its end, but the object is whole
    else:
        assert isinstance(found, list) and fault in " ".join(found)


def test_half_a_surrogate_pair_can_be_stored() -> None:
    found = read_form('{"name": "half \\ud83d"}', Pair)
    assert isinstance(found, Pair) and found.name == "half \ufffd" and found.model_dump_json()


@settings(max_examples=300)
@given(st.text(alphabet='{}[]":,`ab1\n\\<>/think', max_size=60))
def test_no_text_raises(text: str) -> None:
    found = read_form(text, Pair)
    assert isinstance(found, Pair) or (found and all(isinstance(fault, str) for fault in found))


@pytest.mark.parametrize("text", ["{" * 200_000, '{"a":' * 200_000, '{"a": "' + "x" * 500_000, "```\n" * 50_000])
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    read_form(text, Pair)
    assert time.process_time() - started < 5


def test_faults_are_bounded() -> None:
    assert bounded(["a\nb"]) == ["a b"] and bounded([]) == []
    many = bounded([f"{n}" + "x" * 1000 for n in range(12)])
    assert len(many) == 11 and many[-1] == "There are 2 more faults." and max(map(len, many)) == 300
    assert json.dumps(many)
