"""ChatML: token for token the family's template, read back equal, and nothing that is sampled breaks the reader."""

from typing import Any

import pytest
from chatml_tokenizer import small_tokenizer
from drawn_messages import others_of, turns_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from trace_jax.chat.calls import read_arguments
from trace_jax.chat.chatml import END, START, ChatMLRenderer, signature, with_tools
from trace_jax.chat.codec import RenderError
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.environments.helpdesk.tools import TOOLS

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEMPLATE = (  # SmolLM2's, less the default system message
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def renderer(tokenizer: Tokenizer) -> ChatMLRenderer:
    return ChatMLRenderer(tokenizer)


marks = st.sampled_from([START, END, "/", "\n", "\n/", " ", "{}", "user\n", "<|endoftext|>"])
texts = st.lists(st.one_of(marks, st.text(max_size=8))).map("".join)
slashless = texts.map(lambda text: text.replace("/", "|"))
names = slashless.map(lambda text: "".join(text.split())).filter(bool)
calls = st.one_of(
    st.tuples(names, st.dictionaries(texts, st.one_of(texts, st.integers(-99, 99)), max_size=3), st.none()),
    st.tuples(names, st.none(), slashless.filter(lambda text: read_arguments(text) is None)),
)
turns, others = turns_of(slashless, calls), others_of(texts)


@SETTINGS
@given(turn=turns)
def test_an_assistant_turn_is_read_back_equal(renderer: ChatMLRenderer, turn: Message) -> None:
    ids = renderer.assistant(turn)
    assert renderer.parse(ids) == turn
    assert renderer.parse(ids[:-1]) == turn  # cut just before the stop token
    assert ids[-1] in renderer.stop_token_ids
    assert not set(ids[:-1]) & set(renderer.stop_token_ids)


@SETTINGS
@given(start=others, turn=turns, then=others)
def test_continuing_token_by_token_equals_rendering_the_whole_history(
    renderer: ChatMLRenderer, start: list[Message], turn: Message, then: list[Message]
) -> None:
    sampled = renderer.assistant(turn)
    whole = renderer.prompt([*start, turn, *then], ())
    assert renderer.prompt(start, ()) + sampled + renderer.continuation([*start, turn], sampled, then) == whole
    cut = sampled[:-1]
    assert renderer.prompt(start, ()) + cut + renderer.continuation([*start, turn], cut, then) == whole


ordinary = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=30)
histories = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), ordinary), min_size=1, max_size=5
)


@SETTINGS
@given(history=histories)
def test_the_tokens_are_those_of_the_family_s_template(
    tokenizer: Tokenizer, renderer: ChatMLRenderer, history: list[tuple[str, str]]
) -> None:
    # What the assistant says follows its header as sampled, so it joins no white space of the header's.
    history = [(role, text.strip().replace("/", "|") if role == "assistant" else text) for role, text in history]
    reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE)
    chat = [{"role": role, "content": content} for role, content in history]
    expected = reference.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    messages = [Message.model_validate(message) for message in chat]
    assert list(renderer.prompt(messages, ())) == expected


@SETTINGS
@given(ids=st.lists(st.integers(0, 399), max_size=40))
def test_any_sampled_tokens_are_read(renderer: ChatMLRenderer, ids: list[int]) -> None:
    message = renderer.parse(ids)
    message.model_dump_json()
    for call in message.tool_calls:
        assert (call.arguments is None) != (call.raw_arguments is None)


@pytest.mark.parametrize(
    ("written", "name", "raw"),
    [
        ("/get_order O41", "get_order", "O41"),
        ('/get_order {"order_id":"O41"', "get_order", '{"order_id":"O41"'),
        ("/ 1", "", "1"),
        ("/get_order\nO41", "get_order", "O41"),
        ("Well.\n/get_order [1]\n", "get_order", "[1]\n"),
    ],
)
def test_a_malformed_call_stays_a_call(
    tokenizer: Tokenizer, renderer: ChatMLRenderer, written: str, name: str, raw: str
) -> None:
    message = renderer.parse([*tokenizer.encode(written).ids, *renderer.stop_token_ids])
    (call,) = message.tool_calls
    assert (call.name, call.arguments, call.raw_arguments) == (name, None, raw)
    assert message.content == ("Well." if "Well" in written else None)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("/list_orders", "list_orders"),
        ("/list_orders ", "list_orders"),
        ("/list_orders\n", "list_orders"),
        ("/list_orders null", "list_orders"),
        ('/list_orders ""', "list_orders"),
        ("/list_orders {}\n", "list_orders"),
        ('/get_order("O41")', 'get_order("O41")'),
        ("/", ""),
    ],
)
def test_no_arguments_are_an_empty_object(
    tokenizer: Tokenizer, renderer: ChatMLRenderer, written: str, name: str
) -> None:
    message = renderer.parse([*tokenizer.encode(f"Well.\n{written}").ids, *renderer.stop_token_ids])
    assert message.tool_calls == (ToolCall(id="call_0", name=name, arguments={}),)
    assert message.content == "Well."


def test_the_form_is_the_documented_one(tokenizer: Tokenizer, renderer: ChatMLRenderer) -> None:
    def text(ids: tuple[int, ...]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    tools = tuple(tool for tool in TOOLS if tool.name in ("refund", "search_products"))
    start = [Message(role="system", content="Be kind."), Message(role="user", content="hi")]
    assert text(renderer.prompt(start, tools)) == (
        "<|im_start|>system\nBe kind.\nTools, each called by a line of its own:\n"
        '/search_products {"kind":"mug"|"lamp"|"chair"|"rug"|"clock"|"desk"} '
        "List products of a kind with price and stock, cheapest first.\n"
        '/refund {"order_id":string,"amount":integer} Refund an amount on an order.<|im_end|>\n'
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    calls = (
        ToolCall(id="x", name="get_order", arguments={"order_id": "O41", "n": [1, 2]}),
        ToolCall(id="y", name="refund", arguments={}),
    )
    turn = renderer.assistant(Message(role="assistant", content="Wait.", tool_calls=calls))
    assert text(turn) == 'Wait.\n/get_order {"order_id":"O41","n":[1,2]}\n/refund {}<|im_end|>'
    results = [
        Message(role="tool", content=content, tool_call_id=number) for content, number in (("a", "x"), ("b", "y"))
    ]
    expected = "\n<|im_start|>tool\na<|im_end|>\n<|im_start|>tool\nb<|im_end|>\n<|im_start|>assistant\n"
    assert text(renderer.continuation((), turn, results)) == expected
    assert text(renderer.continuation((), turn[:-1], results)) == "<|im_end|>" + expected


def test_tools_without_a_system_message_make_one() -> None:
    (system, user) = with_tools([Message(role="user", content="hi")], TOOLS[:1])
    assert (system.role, user.role) == ("system", "user")
    assert system.content is not None and system.content.endswith(signature(TOOLS[0]))
    assert with_tools([user], ()) == [user]


def test_a_signature_tells_what_is_optional_and_nested() -> None:
    schema = {
        "type": "object",
        "properties": {
            "ids": {"type": "array", "items": {"type": "string"}},
            "size": {"enum": [1, "big"]},
            "any": {"anyOf": [{"type": "null"}]},
        },
        "required": ["ids"],
    }
    tool = Tool(name="f", description="Does it.", parameters=schema)
    assert signature(tool) == '/f {"ids":[string],"size"?:1|"big","any"?:{"anyOf":[{"type":"null"}]}} Does it.'


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({}, "{}"),
        ({"properties": {"a": True, "b": None}}, '{"a"?:true,"b"?:null}'),
        ({"properties": {"a": {"enum": "x", "type": "string"}}}, '{"a"?:string}'),
        ({"properties": {"a": {"type": ["string", "null"]}}}, '{"a"?:{"type":["string","null"]}}'),
        ({"properties": {"a": {"type": "array", "items": {"type": "array", "items": True}}}}, '{"a"?:[[true]]}'),
        ({"properties": ["a"]}, '{"properties":["a"]}'),
        ({"properties": {}, "required": None}, '{"properties":{},"required":null}'),
    ],
)
def test_a_signature_of_an_odd_schema(schema: dict[str, Any], shown: str) -> None:
    assert signature(Tool(name="f", description="Does it.", parameters=schema)) == f"/f {shown} Does it."


def test_a_schema_may_nest_as_deep_as_it_likes(renderer: ChatMLRenderer) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100_000):
        schema = {"type": "array", "items": schema}
    tool = Tool.model_construct(name="f", description="", parameters={"properties": {"a": schema}})
    assert signature(tool).count("[") == 100_000
    nested = Tool.model_construct(name="f", description="", parameters={"properties": {"a": {"anyOf": [schema]}}})
    with pytest.raises(RenderError, match="nests too deeply"):
        renderer.prompt([Message(role="user", content="hi")], [nested])


def call(name: str, raw: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id="0", name=name, arguments=None, raw_arguments=raw),))


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (Message(role="user", content="x"), "role 'user'"),
        (Message(role="assistant", content="a\n/b"), "slash"),
        (call("get order", "{}"), "get order"),
        (call("f", "\n/"), "slash"),
        (Message.model_construct(role="assistant", content="\ud800", tool_calls=()), "cannot be encoded"),
    ],
)  # fmt: skip
def test_what_would_not_be_read_back_is_refused(renderer: ChatMLRenderer, message: Message, match: str) -> None:
    with pytest.raises(RenderError, match=match):
        renderer.assistant(message)
