"""What is rendered is read back equal, and no text can pretend to be structure."""

import json

import pytest
from drawn_messages import others_of, turns_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from trace_jax.chat.calls import read_arguments, read_object
from trace_jax.chat.codec import RenderError
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import SPECIAL_TOKENS
from trace_jax.contract.trajectory import Message, ToolCall

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Text that is rich in what looks like structure: special tokens, braces, quotes, spaces.
marks = st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", " ", "{}", '"', "\\", "\n"])
texts = st.lists(st.one_of(marks, st.text(max_size=8)))
contents = texts.map("".join)
names = contents.map(lambda text: "".join(text.split())).filter(bool)
integers = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False), contents),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(contents, inner, max_size=3)),
    max_leaves=6,
)
arguments = st.dictionaries(contents, values, max_size=4)


calls = st.one_of(
    st.tuples(names, arguments, st.none()),
    st.tuples(names, st.none(), contents.filter(lambda text: read_arguments(text) is None)),
)
turns, others = turns_of(contents, calls), others_of(contents)


@SETTINGS
@given(turn=turns)
def test_an_assistant_turn_is_read_back_equal(renderer: TinyRenderer, turn: Message) -> None:
    ids = renderer.assistant(turn)
    assert renderer.parse(ids) == turn
    assert renderer.parse(ids[:-1]) == turn  # cut just before the stop token
    assert ids[-1] in renderer.stop_token_ids
    assert not set(ids[:-1]) & set(renderer.stop_token_ids)


@SETTINGS
@given(start=others, turn=turns, then=others)
def test_continuing_token_by_token_equals_rendering_the_whole_history(
    renderer: TinyRenderer, start: list[Message], turn: Message, then: list[Message]
) -> None:
    sampled = renderer.assistant(turn)
    whole = renderer.prompt([*start, turn, *then], ())
    assert renderer.prompt(start, ()) + sampled + renderer.continuation([*start, turn], sampled, then) == whole
    cut = sampled[:-1]
    assert renderer.prompt(start, ()) + cut + renderer.continuation([*start, turn], cut, then) == whole


@SETTINGS
@given(messages=others)
def test_content_holds_no_special_token(renderer: TinyRenderer, tokenizer: Tokenizer, messages: list[Message]) -> None:
    special = {tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    structure = [index for index in renderer.prompt(messages, ()) if index in special]
    headers = {role: tokenizer.token_to_id(f"<|{role}|>") for role in ("system", "user", "assistant", "tool")}
    end = tokenizer.token_to_id("<|end|>")
    expected = [index for message in messages for index in (headers[message.role], end)]
    assert structure == [*expected, headers["assistant"]]


@SETTINGS
@given(ids=st.lists(st.integers(0, 299), max_size=30))
def test_any_sampled_tokens_are_read(renderer: TinyRenderer, ids: list[int]) -> None:
    message = renderer.parse(ids)
    assert message.role == "assistant"
    message.model_dump_json()
    for call in message.tool_calls:
        assert (call.arguments is None) != (call.raw_arguments is None)


def test_the_form_is_the_documented_one(renderer: TinyRenderer, tokenizer: Tokenizer) -> None:
    def text(ids: tuple[int, ...]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    start = [Message(role="system", content="Be kind."), Message(role="user", content="hi")]
    assert text(renderer.prompt(start, ())) == "<|system|>Be kind.<|end|><|user|>hi<|end|><|assistant|>"
    calls = (
        ToolCall(id="x", name="get_order", arguments={"order_id": "A1", "n": [1, 2]}),
        ToolCall(id="y", name="refund", arguments={}),
    )
    turn = renderer.assistant(Message(role="assistant", tool_calls=calls))
    assert text(turn) == '<|call|>get_order {"order_id":"A1","n":[1,2]}<|call|>refund {}<|end|>'
    answers = [("ok", "x"), ("no", "y")]
    results = [Message(role="tool", content=content, tool_call_id=number) for content, number in answers]
    assert text(renderer.continuation((), turn, results)) == "<|tool|>ok<|end|><|tool|>no<|end|><|assistant|>"
    assert text(renderer.continuation((), turn[:-1], results)).startswith("<|end|><|tool|>ok")


@pytest.mark.parametrize(
    "written",
    [
        "{",
        "[1]",
        "3",
        '"a"',
        "[]",
        "false",
        "0",
        "{'a':1}",
        "[" * 5000,
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1e999}',
        '{"a":"\\ud800"}',
        '{"a":9223372036854775808}',
        '{"a":[-9223372036854775809]}',
        '{"a":' + "[" * 64 + "]" * 64 + "}",
        '{"a":' * 65 + "1" + "}" * 65,
    ],  # fmt: skip
)
def test_what_is_not_a_json_object_stays_as_written(renderer: TinyRenderer, written: str) -> None:
    assert read_arguments(written) is None and read_object(written) is None
    call = ToolCall(id="call_0", name="f", arguments=None, raw_arguments=written)
    turn = Message(role="assistant", tool_calls=(call,))
    assert renderer.parse(renderer.assistant(turn)) == turn


@pytest.mark.parametrize(
    "written",
    [
        '{"a":' + "[" * 63 + "]" * 63 + "}",
        '{"a":' * 64 + "1" + "}" * 64,
        '{"a":9223372036854775807,"b":-9223372036854775808,"c":true,"d":1e300}',
    ],
)
def test_arguments_at_the_bounds_are_read(written: str) -> None:
    assert read_arguments(written) == read_object(written) == json.loads(written)


NOTHING = ["", " ", "\n", '""', '" "', "null", " null\n"]


@pytest.mark.parametrize("written", [*NOTHING, "{}", " { } "])
def test_no_arguments_are_an_empty_object(renderer: TinyRenderer, tokenizer: Tokenizer, written: str) -> None:
    assert read_arguments(written) == {}
    call = [tokenizer.token_to_id("<|call|>"), *tokenizer.encode(f"list_orders {written}").ids]
    bare = [tokenizer.token_to_id("<|call|>"), *tokenizer.encode("list_orders").ids]
    expected = (ToolCall(id="call_0", name="list_orders", arguments={}),)
    assert renderer.parse(call).tool_calls == renderer.parse(bare).tool_calls == expected


@pytest.mark.parametrize("written", NOTHING)
def test_nothing_is_no_object(written: str) -> None:
    assert read_object(written) is None


def test_what_cannot_be_written_is_refused_by_name(renderer: TinyRenderer) -> None:
    with pytest.raises(RenderError, match="get order"):
        renderer.assistant(Message(role="assistant", tool_calls=(ToolCall(id="0", name="get order", arguments={}),)))
    with pytest.raises(RenderError, match="role 'user'"):
        renderer.assistant(Message(role="user", content="x"))
    with pytest.raises(RenderError, match="assistant"):
        renderer.continuation((), (), [Message(role="assistant", content="x")])
    with pytest.raises(RenderError, match="cannot be encoded"):
        renderer.prompt([Message.model_construct(role="user", content="\ud800", tool_calls=())], ())


def test_a_tokenizer_without_the_special_tokens_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(RenderError, match="<|call|>"):
        TinyRenderer(Tokenizer(models.BPE()))


def test_the_caller_s_tokenizer_is_left_as_it_was(tokenizer: Tokenizer) -> None:
    TinyRenderer(tokenizer)
    assert tokenizer.encode("<|end|>").ids == [tokenizer.token_to_id("<|end|>")]
