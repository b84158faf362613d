"""An agent is told in one line what to mend in its call."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_jax.contract.trajectory import Tool, ToolCall
from trace_jax.environments.calls import call_error
from trace_jax.environments.hosts.deadline import DeadlineExceeded, deadline

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


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "str"}, "Unknown type 'str'"),
        ({"pattern": "("}, "missing ), unterminated subpattern"),
        ({"pattern": "a{99999999999999}"}, "repetition number is too large"),
        ({"$ref": "#/nope"}, "'/nope' does not exist"),
        ({"$ref": "#/properties/order_id"}, "recursion"),
        ({"$ref": "file:///etc/passwd"}, "Unresolvable: file:///etc/passwd"),
        ({"minLength": "x"}, "TypeError"),
        ({"enum": 3}, "TypeError"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_one_line_too(schema: dict[str, Any], fault: str) -> None:
    tool = Tool(name="refund", description="", parameters={"type": "object", "properties": {"order_id": schema}})
    told = call_error(call("refund", {"order_id": "O41"}), (tool, FREE))
    assert told and told.startswith("the schema of refund is faulty, mend the tool: ") and fault in told
    assert len(told) <= 300 and len(told.splitlines()) == 1
    assert call_error(call("refund", {}), (tool,)) is None  # as far as it is followed


def test_no_schema_has_anything_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, deadline(60):
        url = "http://{}:{}/schema".format(*server.getsockname())
        for schema in ({"$ref": url}, {"$dynamicRef": f"{url}#x"}, {"$id": url, "$ref": "other"}):
            told = call_error(call("odd", {"a": 1}), (Tool(name="odd", description="", parameters=schema),))
            assert told and "the schema of odd is faulty" in told and "Unresolvable" in told
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_pattern_that_takes_for_ever_ends_with_the_episode() -> None:
    tool = Tool(name="find", description="", parameters={"properties": {"name": {"pattern": "^(a+)+$"}}})
    with pytest.raises(DeadlineExceeded), deadline(0.2):
        call_error(call("find", {"name": "a" * 200 + "!"}), (tool,))
