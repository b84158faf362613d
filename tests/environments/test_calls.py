"""An agent is told in one line what to mend in its call."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_jax.contract.trajectory import Tool, ToolCall
from trace_jax.environments.calls import call_error

REFUND = Tool(
    name="refund",
    description="Refund an amount on an order.",
    parameters={
        "type": "object",
        "properties": {
            "order_id": {"type": "string"},
            "amount": {"type": "integer", "minimum": 1},
            "items": {"type": "array", "items": {"type": "object", "properties": {"kind": {"enum": ["mug", "rug"]}}}},
        },
        "required": ["order_id"],
        "additionalProperties": False,
    },
)
FREE = Tool(name="note", description="Keep anything.", parameters={"type": "object"})


def call(name: str, arguments: dict[str, Any] | None = None, raw: str | None = None) -> ToolCall:
    return ToolCall(id="c", name=name, arguments=arguments, raw_arguments=raw)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (call("refnd", {}), "no tool 'refnd': use one of refund, note"),
        (call("", {}), "no tool '': use one of refund, note"),
        (
            call("refund", raw='{"order_id":"O41" "amount":12}'),
            "arguments of refund are not a JSON object: Expecting ',' delimiter at character 18 of "
            '\'{"order_id":"O41" "a…\'',
        ),
        (call("refund", raw=""), "arguments of refund are not a JSON object: Expecting value at character 0 of ''"),
        (call("refund", raw="[1,2]"), "arguments of refund are not a JSON object: it is [1, 2]"),
        (call("refund", raw='{"amount":NaN}'), "it holds NaN"),
        (call("refund", raw='{"amount":9223372036854775808}'), "an integer beyond 64 bits"),
        (call("refund", raw="[" * 100_000), "nested too deeply"),
        (call("refund", {}), "arguments of refund do not fit: $: 'order_id' is a required property"),
        (
            call("refund", {"order_id": "O41", "amount": "12"}),
            "arguments of refund do not fit: $.amount: '12' is not of type 'integer'",
        ),
        (call("refund", {"order_id": "O41", "amount": 0}), "$.amount: 0 is less than the minimum of 1"),
        (call("refund", {"order_id": "O41", "x": 1}), "Additional properties are not allowed ('x' was unexpected)"),
        (
            call("refund", {"order_id": "O41", "items": [{"kind": "mug"}, {"kind": "lamp"}]}),
            "$.items[1].kind: 'lamp' is not one of ['mug', 'rug']",
        ),
    ],
)
def test_each_mistake_is_named(made: ToolCall, error: str) -> None:
    told = call_error(made, (REFUND, FREE))
    assert told is not None and error in told


def test_a_good_call_is_none() -> None:
    assert call_error(call("refund", {"order_id": "O41", "amount": 12}), (REFUND, FREE)) is None
    assert call_error(call("note", {"any": ["thing"]}), (REFUND, FREE)) is None


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


@given(name=st.one_of(words, st.just("refund")), raw=words, key=words, value=words)
def test_whatever_is_written_one_short_line_comes_back(name: str, raw: str, key: str, value: str) -> None:
    for made in (call(name, raw=raw), call(name, {key: value}), call(name, {"order_id": [value] * 9})):
        told = call_error(made, (REFUND,))
        assert told and len(told) <= 300 and len(told.splitlines()) == 1
