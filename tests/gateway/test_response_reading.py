"""Bodies of responses, as servers write them and as nobody should."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_jax.contract.served import ServedAnswer
from trace_jax.contract.trajectory import Message, ToolCall, Usage
from trace_jax.gateway.response_reading import UnreadableResponse, read_response

STREAM, WHOLE = "text/event-stream; charset=utf-8", "application/json"


def events(*values: object, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\r\n\r\n" for value in values) + end


def delta(index: int, reason: str | None = None, **fields: object) -> dict:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


def test_deltas_of_several_choices_are_put_together() -> None:
    part = {"index": 0, "id": "c", "function": {"name": "add", "arguments": '{"a"'}}
    body = events(
        delta(0, role="assistant", content=""),
        delta(1, content="b", reasoning_content="hm"),
        delta(0, tool_calls=[part]),
        delta(0, tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}], content="a"),
        delta(1, "length", content="c"),
        delta(0, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}},
    )
    call = ToolCall(id="c", name="add", arguments={"a": 1})
    first = Message(role="assistant", content="a", tool_calls=(call,))
    assert read_response(body, STREAM) == (
        (
            ServedAnswer(message=first, finish_reason="tool_calls"),
            ServedAnswer(message=Message(role="assistant", content="bc"), reasoning="hm", finish_reason="length"),
        ),
        Usage(prompt_tokens=5, completion_tokens=6),
    )


def test_a_cut_stream_is_what_has_come_and_what_is_odd_is_kept() -> None:
    body = events(delta(0, content="half \ud83d"), end=b'data: {"choices": [{"delta": {"content": "lo')
    (answer,), usage = read_response(body, STREAM)
    assert answer.message.content == "half �" and answer.finish_reason is None and usage is None
    message = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": NaN}'}}]}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": -1}}
    (answer,), usage = read_response(json.dumps(whole).encode(), WHOLE)
    assert answer.message.tool_calls == (ToolCall(id="call_0", name="f", arguments=None, raw_arguments='{"a": NaN}'),)
    assert usage is None
    (answer,), _ = read_response(b'{"choices": [{"index": 0, "text": "said", "finish_reason": "stop"}]}', WHOLE)
    assert answer.message.content == "said"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"choices": 3}', b'{"choices": [[]]}', b"[" * 10_000, b"\xff"])
def test_what_is_no_completion_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableResponse):
        read_response(body, WHOLE)
    with pytest.raises(UnreadableResponse):
        read_response(b"data: " + body + b"\n\n", STREAM)


names = st.sampled_from(["choices", "index", "delta", "message", "content", "tool_calls", "function", "name", "usage"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(values, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_anything_is_read_or_refused(found: list, streamed: bool, chance: random.Random) -> None:
    wrapped = [
        {"choices": [{"index": 0, "delta": value, "message": value}]} if chance.random() < 0.5 else value
        for value in found
    ]
    body = bytearray(events(*wrapped) if streamed else json.dumps(wrapped[:1] and wrapped[0]).encode())
    if body and chance.random() < 0.5:
        body[chance.randrange(len(body))] = chance.randrange(256)
    try:
        answers, _ = read_response(bytes(body), STREAM if streamed else WHOLE)
    except UnreadableResponse:
        return
    for answer in answers:
        assert ServedAnswer.model_validate_json(answer.model_dump_json()) == answer
