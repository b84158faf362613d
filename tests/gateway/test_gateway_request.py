"""Bodies are changed in one place; a conversation's opening is the same at each of its turns."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_jax.errors import UserError
from trace_jax.gateway.messages import conversation, reasoning
from trace_jax.gateway.pinning import conversation_name
from trace_jax.gateway.request import CHAT, TEXT, opening, read_request, with_members

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)
spaces = st.text(" \t\r\n", max_size=3)


def compact(value) -> str:
    return json.dumps(value, separators=(",", ":"))


@given(
    st.lists(st.tuples(texts | st.sampled_from(["model", "ids"]), values, spaces, spaces, spaces, spaces), max_size=6),
    spaces, texts, st.booleans(),
)  # fmt: skip
def test_only_the_members_are_set(members, space, new, ascii_only):
    def written(**news) -> str:
        parts = []
        for name, value, a, b, c, d in members:
            shown = compact(news[name]) if name in news else json.dumps(value, ensure_ascii=ascii_only)
            parts.append(f"{a}{json.dumps(name)}{b}:{c}{shown}{d}")
        return f"{space}{{{','.join(parts) or space}}}{space}"

    names, news = [name for name, *_ in members], {"model": new, "ids": [1, 2]}
    added = ",".join(f"{compact(name)}:{compact(value)}" for name, value in news.items() if name not in names)
    begin, _, rest = written(**news).partition("{")
    assert with_members(written(), news) == f"{begin}{{{added}{',' if added and names else ''}{rest}"


def chat(*messages, **fields):
    return read_request(CHAT, json.dumps({"model": "m", "messages": messages, **fields}).encode(), {})


def said(role, content, **fields):
    return {"role": role, "content": content, **fields}


@given(st.lists(st.sampled_from(["user", "assistant", "tool"]).flatmap(lambda r: texts.map(lambda t: said(r, t)))))
def test_later_turns_have_the_opening_of_the_first(later):
    first = [said("system", "be kind"), said("user", "refund me")]
    assert conversation_name(chat(*first)) == conversation_name(chat(*first, *later, temperature=1))
    assert opening(chat(*first, *later)).fields["messages"] == first


def test_other_openings_are_other_conversations():
    first = [said("system", "be kind"), said("user", "refund me")]
    tool = {"type": "function", "function": {"name": "refund", "parameters": {}}}
    calls = [
        chat(*first), chat(first[1]), chat(first[0], said("user", "refund him")), chat(*first, tools=[tool]),
        read_request(TEXT, b'{"model":"m","prompt":"refund me"}', {}),
        read_request(TEXT, b'{"model":"m","prompt":"refund me "}', {}),
    ]  # fmt: skip
    assert len({conversation_name(call) for call in calls}) == len(calls)


def test_messages_and_tools_as_the_renderers_take_them():
    function = {"name": "refund", "description": "Pay back.", "parameters": {"type": "object", "properties": {}}}
    call = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": '{"amount": 3}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "refund", "arguments": '{"amount'}}
    messages, tools = conversation(
        chat(
            said("developer", [{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}]),
            said("assistant", None, tool_calls=[call, broken]),
            said("tool", "done", tool_call_id="c1"),
            tools=[{"type": "function", "function": function}],
        )
    )
    assert [(m.role, m.content) for m in messages] == [("system", "be kind"), ("assistant", None), ("tool", "done")]
    assert [c.arguments for c in messages[1].tool_calls] == [{"amount": 3}, None]
    assert messages[1].tool_calls[1].raw_arguments == '{"amount'
    assert tools[0].offered() == function


def test_thinking_comes_back_beside_the_messages():
    call = chat(
        said("user", "hi", reasoning_content="not mine to say"),
        said("assistant", "hello", reasoning_content="so"),
        said("assistant", None, reasoning_content=None),
    )
    assert reasoning(call) == [None, "so", None]
    assert [message.content for message in conversation(call)[0]] == ["hi", "hello", None]
    with pytest.raises(UserError, match="reasoning_content is a list: send a string"):
        reasoning(chat(said("assistant", "hello", reasoning_content=["so"])))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "hello"},
        {"messages": []},
        {"messages": [3]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": "f"}]}]},
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
    ],
)
def test_what_cannot_be_read_is_said_so(fields):
    with pytest.raises(UserError):
        conversation(read_request(CHAT, json.dumps({"model": "m", **fields}).encode(), {}))


def test_little_is_quoted_of_what_cannot_be_read():
    part = {"type": "y" * 5000}
    for message in ({"role": "x" * 5000}, {"role": "user", "content": [part]}):
        body = json.dumps({"model": "m", "messages": [message]}).encode()
        with pytest.raises(UserError) as refusal:
            conversation(read_request(CHAT, body, {}))
        assert len(str(refusal.value)) < 160 and ("xxx" in str(refusal.value) or "yyy" in str(refusal.value))


def test_a_completion_is_another_conversation_than_a_chat():
    body = b'{"model":"m","prompt":"x","messages":[]}'
    assert conversation_name(read_request(CHAT, body, {})) != conversation_name(read_request(TEXT, body, {}))
