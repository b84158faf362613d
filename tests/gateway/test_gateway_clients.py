"""What clients send without meaning much by it, and how they are told what cannot be done."""

import json
import urllib.error
import urllib.request

import pytest
from scripted import Scripted, scripted_gateway

from trace_jax.contract.trajectory import Message, ToolCall

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TOOLS = [{"type": "function", "function": {"name": "refund", "parameters": {}}}]
DEEP: dict = {}
for _ in range(300):
    DEEP = {"properties": DEEP}
ORIGIN = "https://agents.example"


@pytest.fixture(scope="module")
def engine():
    return Scripted()


@pytest.fixture(scope="module")
def url(engine, renderer, tokenizer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    with scripted_gateway(engine, renderer, tokenizer, directory, capacity=128, cors_origins=[ORIGIN]) as url:
        yield url


@pytest.fixture
def ask(url):
    """Sends fields, or a body; gives status and the JSON that comes back."""

    def ask(path=CHAT, body=None, /, **fields):
        said = {"messages": [{"role": "user", "content": "cancel"}]} if path == CHAT else {"prompt": "cancel"}
        data = body or json.dumps({"model": "base", **said, **fields}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["error"]

    return ask


@pytest.fixture
def say(engine, renderer):
    def say(*calls, content=None):
        engine.says = renderer.assistant(Message(role="assistant", content=content, tool_calls=calls))

    return say


def refund(arguments):
    return ToolCall(id="c", name="refund", arguments=arguments)


@pytest.mark.parametrize("options", [{}, {"tools": []}, {"tools": None}, {"tools": TOOLS, "tool_choice": "none"}])
@pytest.mark.parametrize("content", [None, "I pay."])
def test_no_calls_where_no_tools_are_taken(ask, say, options, content):
    say(refund({}), refund({}), content=content)
    status, answer = ask(**options)
    (choice,) = answer["choices"]
    assert status == 200 and choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": content or ""}


def test_calls_where_tools_are_offered_and_only_the_first_if_the_client_takes_one_at_a_time(ask, say):
    say(refund({"n": 1}), refund({"n": 2}))
    for options, number in (({}, 2), ({"parallel_tool_calls": True}, 2), ({"parallel_tool_calls": False}, 1)):
        (choice,) = ask(tools=TOOLS, **options)[1]["choices"]
        calls = choice["message"]["tool_calls"]
        assert [call["function"]["arguments"] for call in calls] == ['{"n":1}', '{"n":2}'][:number]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None


@pytest.mark.parametrize(
    "function", [{}, {"arguments": None}, *({"arguments": a} for a in ("", " ", '""', "null", "{}", {}))]
)
def test_a_call_without_arguments_comes_back_as_one_with_an_empty_object(ask, say, engine, renderer, function):
    say(content="done")
    history = [
        {"role": "user", "content": "cancel"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "refund", **function}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]
    assert ask(messages=history, tools=TOOLS)[0] == 200
    turns = [
        Message(role="user", content="cancel"),
        Message(role="assistant", tool_calls=(refund({}),)),
        Message(role="tool", content="ok", tool_call_id="c"),
    ]
    assert engine.prompts[-1] == renderer.prompt(turns, ())


def test_arguments_may_come_as_an_object(ask, say, engine, renderer):
    say(content="done")
    arguments = {"n": 1, "why": "zu spät", "items": [None, {"a": 0.5}]}
    call = {"id": "c", "type": "function", "function": {"name": "refund", "arguments": arguments}}
    said = {"role": "user", "content": "cancel"}
    assert ask(messages=[said, {"role": "assistant", "tool_calls": [call]}, said], tools=TOOLS)[0] == 200
    user = Message(role="user", content="cancel")
    turns = [user, Message(role="assistant", tool_calls=(refund(arguments),)), user]
    assert engine.prompts[-1] == renderer.prompt(turns, ())


@pytest.mark.parametrize("prompt", ["cancel", ["cancel"], [5, 6], [[5, 6]]])
def test_a_list_of_one_prompt_is_that_prompt(ask, say, prompt):
    say(content="done")
    assert ask(TEXT, prompt=prompt)[0] == 200


@pytest.mark.parametrize("prompt", [["a", "b"], [[5], [6]], [["a"]], [True], [1.0], 5, {}, [None]])
def test_other_prompts_are_refused_in_words(ask, prompt):
    status, error = ask(TEXT, prompt=prompt)
    assert (status, error["param"]) == (400, "prompt") and "send each prompt by itself" in error["message"]
    assert ".str" not in error["message"]


REPLAYED = {
    "refusal": None, "annotations": [], "audio": None, "function_call": None, "id": "m1", "index": 0,
    "provider_specific_fields": {"refusal": None}, "reasoning_details": [{"type": "text"}], "finish_reason": "stop",
}  # fmt: skip


@pytest.mark.parametrize("extra", [{name: value} for name, value in REPLAYED.items()] + [REPLAYED])
def test_replayed_fields_change_no_prompt(ask, say, engine, renderer, extra):
    say(content="done")
    turns = [("user", "cancel"), ("assistant", "ok"), ("user", "refund")]
    messages = [{"role": role, "content": content, **extra} for role, content in turns]
    assert ask(messages=messages)[0] == 200
    assert engine.prompts[-1] == renderer.prompt([Message(role=r, content=c) for r, c in turns], ())


HALVES = ["\\ud83d", "\\uD83D", "\\udc00", "a\\udc00\\ud83d", "\\ud83d\\u0041", "\\ud83d\\ud83d\\ude00"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("path", "param", "text"),
    [
        (TEXT, "prompt", '"prompt":"a %s"'),
        (TEXT, "prompt", '"prompt":["a %s"]'),
        (TEXT, "stop", '"prompt":"a","stop":"%s"'),
        (CHAT, "messages", '"messages":[{"role":"user","content":"Seen %s today"}]'),
        (CHAT, "messages", '"messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}]'),
        (CHAT, "messages", '"messages":[{"role":"tool","tool_call_id":"%s","content":""}]'),
        (CHAT, "messages", '"messages":[{"role":"assistant","content":"","reasoning_content":"%s"}]'),
        (CHAT, "stop", '"messages":[{"role":"user","content":"x"}],"stop":["b","%s"]'),
        (CHAT, "tools", '"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":'
         '{"name":"f","parameters":{"%s":1}}}]'),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_refused_in_words(ask, path, param, text, half):
    status, error = ask(path, b'{"model":"base",' + (text % half).encode() + b"}")
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert "holds half a surrogate pair (\\ud" in error["message"] and error["message"].endswith(
        "send whole characters"
    )


def test_whole_pairs_are_characters_and_other_fields_hold_what_they_like(ask, say):
    say(content="done")
    for pair in ("\\ud83d\\ude00", "\\\\ud83d", "\\uD83D\\uDE00 é"):
        assert ask(TEXT, f'{{"model":"base","prompt":"a {pair}"}}'.encode())[0] == 200
    assert ask(CHAT, b'{"model":"base","user":"\\ud83d","messages":[{"role":"user","content":"x"}]}')[0] == 200


@pytest.mark.parametrize("name", ["\\ud83d", "m\\udc00"])
def test_a_refusal_that_quotes_half_a_pair_is_a_refusal(ask, name):
    assert ask(CHAT, f'{{"model":"{name}","messages":[]}}'.encode())[0] == 404
    status, error = ask(CHAT, f'{{"model":"base","messages":[],"{name}":1}}'.encode())
    assert status == 400 and "\\ud" in error["param"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", ["5 stop strings", "at most 4"]),
        ({"stop": "x" * 257}, "stop", ["at most 256 characters"]),
        ({"stop": ""}, "stop", ["at least 1 character"]),
        ({"stop": 3}, "stop", ["3"]),
        ({"tools": [{"type": "web_search"}]}, "tools", ["web_search", "only functions"]),
        ({"tools": [TOOLS[0], {"type": "file_search", "vector_store_ids": []}]}, "tools", ["tools[1]", "file_search"]),
        ({"tools": [{"type": "function"}]}, "tools", ["tools[0].function is missing"]),
        ({"tools": [None]}, "tools", ["tools[0] is None: it should be an object"]),
        ({"tools": [{"type": "function", "function": None}]}, "tools", ["function is None: it should be an object"]),
        ({"tools": [{"type": "function", "function": {}}]}, "tools", ["function.name is missing"]),
        ({"tools": [{**TOOLS[0], "function": {"name": "f", "parameters": DEEP}}]}, "tools", ["more than 128 levels"]),
        ({"messages": [None]}, "messages", ["messages[0] is None: it should be an object"]),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages", ["content part 'a' is no object"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages", ["text is None"]),
        ({"stream_options": 5}, "stream_options", ["stream_options is 5: it should be an object"]),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", ["messages[0].role is 'robot'", "'system'"]),
        ({"messages": [{"content": "x"}]}, "messages", ["messages[0].role is missing"]),
        ({"messages": [{"role": "user", "content": 3}]}, "messages", ["messages[0].content is 3", "string"]),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages", ["tool_calls[0].function"]),
        ({"messages": []}, "messages", ["messages is []: it should have at least 1 item"]),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs", ["leaves no choice"]),
        ({"chat_template_kwargs": {"colour": 1}}, "chat_template_kwargs", ["colour is no field that is known here"]),
        ({"temperature": "hot"}, "temperature", ["'hot'", "number"]),
        ({"max_tokens": 0}, "max_tokens", ["0", "greater than or equal to 1"]),
    ],
)
def test_a_refusal_names_the_field_and_says_what_it_should_be(ask, fields, param, words):
    status, error = ask(**fields)
    assert (status, error["param"]) == (400, param) and all(word in error["message"] for word in words), error


def test_thinking_may_be_switched_off_where_there_is_none(ask, say):
    say(content="done")
    assert ask(chat_template_kwargs={"enable_thinking": False})[0] == 200


def test_browsers_may_ask_from_the_origins_that_were_named(url):
    shown = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, allowed in ((ORIGIN, True), ("https://other.example", False)):
        request = urllib.request.Request(url + CHAT, headers={"Origin": origin, **shown}, method="OPTIONS")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert allowed and answer.headers["Access-Control-Allow-Origin"] == origin
        except urllib.error.HTTPError as error:
            assert not allowed and error.code == 400
    request = urllib.request.Request(url + "/health", headers={"Origin": ORIGIN})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert "X-Trace-Adapter" in answer.headers["Access-Control-Expose-Headers"]


def test_without_origins_a_preflight_is_refused_in_openais_shape(engine, renderer, tokenizer, tmp_path):
    with scripted_gateway(engine, renderer, tokenizer, tmp_path) as url:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(url + CHAT, method="OPTIONS"), timeout=60)
        assert refusal.value.code == 405 and json.loads(refusal.value.read())["error"]["message"]
