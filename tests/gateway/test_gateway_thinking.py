"""A model that thinks: thinking, text and calls reach the client apart, whole or streamed, and are read back."""

import asyncio
import json
from dataclasses import dataclass, field
from itertools import chain

import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qwen3_tokenizer import small_tokenizer
from scripted import Scripted, scripted_gateway

from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.contract.trajectory import Message
from trace_jax.gateway.chunk import Parsed, chunks
from trace_jax.gateway.engine import Sampled

SIZE = 420
FORMS = ("thinking", "no_thinking", "instruct")
CALL = '<tool_call>\n{"name": "refund", "arguments": {"amount": 3}}\n</tool_call>'
FUNCTION = {"name": "refund", "description": "Pay back.", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer(SIZE)


@pytest.fixture(scope="module")
def renderers(tokenizer):
    return {form: Qwen3Renderer(tokenizer, form) for form in FORMS}


@pytest.fixture(scope="module")
def engine():
    return Scripted()


@pytest.fixture(scope="module")
def client(engine, renderers, tokenizer, tmp_path_factory):
    forms = {True: renderers["thinking"], False: renderers["no_thinking"]}
    directory = tmp_path_factory.mktemp("gateway")
    with scripted_gateway(engine, renderers["thinking"], tokenizer, directory, forms=forms) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            yield client


@pytest.fixture(params=[1, 7])
def say(request, engine, tokenizer):
    """Tells the engine what to say; returns its tokens but for the one that ends the turn."""

    def say(text):
        engine.at_once = request.param
        engine.says = tuple(tokenizer.encode(f"{text}<|im_end|>").ids)
        return engine.says[:-1]

    return say


def ask(client, **options):
    asked = {"messages": [{"role": "user", "content": "refund me"}], "tools": TOOLS, **options}
    return client.chat.completions.create(model="base", **asked)


@dataclass
class Told:
    """What one choice of a stream came to."""

    reasoning: str = ""
    content: str = ""
    calls: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    finish_reason: str | None = None
    order: list = field(default_factory=list)


def streamed(client, **options):
    choices = {}
    for chunk in ask(client, stream=True, **options):
        for choice in chunk.choices:
            told, delta = choices.setdefault(choice.index, Told()), choice.delta
            reasoning = getattr(delta, "reasoning_content", None)
            assert not (reasoning and (delta.content or delta.tool_calls))
            told.reasoning += reasoning or ""
            told.content += delta.content or ""
            told.calls += delta.tool_calls or []
            told.logprobs += [entry.logprob for entry in choice.logprobs.content] if choice.logprobs else []
            told.finish_reason = choice.finish_reason
            told.order += ["reasoning"] if reasoning else ["content"] if delta.content else []
    return [choices[index] for index in sorted(choices)]


def test_clients_that_take_no_calls_get_none(client, say):
    say(f"<think>\nhm\n</think>\n\nSee here.\n{CALL}")
    (choice,) = ask(client, tool_choice="none").choices
    assert choice.message.content == "See here." and not choice.message.tool_calls and choice.finish_reason == "stop"
    (told,) = streamed(client, tool_choice="none")
    assert told.content == "See here." and not told.calls and told.finish_reason == "stop"
    assert ask(client).choices[0].finish_reason == "tool_calls"


THOUGHT = "<think>\nThe order is old.\nSo pay back.\n</think>\n\n"
WHY = "The order is old.\nSo pay back."


@pytest.mark.parametrize(
    ("text", "options", "reasoning", "content", "calls", "reason"),
    [
        (THOUGHT + "You get it back.", {}, WHY, "You get it back.", 0, "stop"),
        (THOUGHT + "I pay.\n" + CALL + "\n" + CALL, {}, WHY, "I pay.", 2, "tool_calls"),
        (THOUGHT + CALL, {}, WHY, None, 1, "tool_calls"),
        ("<think>\nOr <tool_call>a</tool_call>\n</think>\n\nNo.", {}, "Or <tool_call>a</tool_call>", "No.", 0, "stop"),
        ("<think>\n\n</think>\n\nAt once.", {}, None, "At once.", 0, "stop"),
        ("The tag </think> ends it.", {}, None, "The tag </think> ends it.", 0, "stop"),
        ("<think>\nfor all I know", {}, "for all I know", None, 0, "stop"),
        (THOUGHT + "So pay back. So it is.", {"stop": "back"}, WHY, "So pay ", 0, "stop"),
        (THOUGHT + "So.\n" + CALL, {"stop": "amount"}, WHY, "So.", 1, "tool_calls"),
    ],
)  # fmt: skip
def test_thinking_text_and_calls_are_told_apart(client, say, text, options, reasoning, content, calls, reason):
    ids = say(text)
    for choice in ask(client, n=2, logprobs=True, **options).choices:
        message = choice.message
        assert getattr(message, "reasoning_content", None) == reasoning
        assert (message.content, choice.finish_reason) == (content, reason)
        assert [call.function.name for call in message.tool_calls or ()] == ["refund"] * calls
        logprobs = [entry.logprob for entry in choice.logprobs.content]
        assert logprobs == [-float(i) for i in range(len(logprobs))]
        if not options:
            assert len(logprobs) == len(ids)
        for told in streamed(client, n=2, logprobs=True, **options):
            assert told.reasoning == (getattr(message, "reasoning_content", None) or "")
            assert told.content == (message.content or "")
            assert [call.function.name for call in told.calls] == ["refund"] * calls
            assert told.logprobs == logprobs
            assert told.finish_reason == choice.finish_reason
            assert told.order == sorted(told.order, reverse=True)  # first it thinks


def test_a_client_chooses_whether_a_hybrid_model_thinks(client, say, engine, renderers):
    say("Hello.")
    hi = [Message(role="user", content="hi")]
    for thinks, form in ((True, "thinking"), (False, "no_thinking"), (None, "thinking")):
        kwargs = {"chat_template_kwargs": {} if thinks is None else {"enable_thinking": thinks}}
        ask(client, messages=[{"role": "user", "content": "hi"}], tools=[], extra_body=kwargs)
        assert engine.prompts[-1] == renderers[form].prompt(hi, [])


def test_thinking_that_the_limit_cuts_leaves_no_content(client, say):
    ids = say(THOUGHT + "Yes.")
    choice = ask(client, max_tokens=len(ids) // 2).choices[0]
    assert choice.finish_reason == "length" and choice.message.content is None
    assert WHY.startswith(choice.message.reasoning_content)


def test_thinking_is_told_as_it_is_sampled(client, say, engine):
    say(THOUGHT + "You get it back.")
    (told,) = streamed(client)
    words = {1: 10, 7: 3}[engine.at_once]
    assert told.order.count("reasoning") >= words and told.order.count("content") >= 2


def test_thinking_that_comes_back_is_in_the_prompt_until_the_user_speaks(client, say, engine, tokenizer):
    say(THOUGHT + "I pay.\n" + CALL)
    history = [{"role": "user", "content": "refund me"}]
    message = ask(client, messages=history).choices[0].message
    history += [message.model_dump(exclude_none=True), {"role": "tool", "content": "done", "tool_call_id": "c"}]
    sampled = engine.prompts[-1] + engine.says
    ask(client, messages=history)
    assert engine.prompts[-1][: len(sampled)] == sampled  # token for token what it has said
    for why in (["so"], 3):
        with pytest.raises(openai.BadRequestError, match="reasoning_content is a"):
            ask(client, messages=[{"role": "assistant", "content": "", "reasoning_content": why}])
    say("Bye.")
    ask(client, messages=[*history, {"role": "user", "content": "Thanks."}])
    assert "So pay back." not in tokenizer.decode(engine.prompts[-1], skip_special_tokens=False)


def test_a_reply_is_json_without_thinking_where_there_is_none(client, say):
    say("Hello.")
    raw = client.chat.completions.with_raw_response.create(model="base", messages=[{"role": "user", "content": "hi"}])
    assert set(json.loads(raw.text)["choices"][0]["message"]) == {"role", "content"}


tags = st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>"])
words = st.sampled_from(["\n", "\n\n", " ", "a", "é", "stop", "st", "op", THOUGHT, CALL])
samples = st.lists(
    st.one_of(
        st.integers(0, SIZE - 1),
        tags.map(lambda tag: (tag,)),
        tags.map(tuple),  # spelled, token by token
        words.map(lambda word: (word,)),
    ),
    max_size=12,
)


@settings(max_examples=500)
@example(parts=[("<think>",), ("a",), tuple("</think>"), ("b",)], form="thinking", sizes=[1] * 40, stops=())
@example(parts=[("a", "<"), tuple("<think>")], form="thinking", sizes=[1] * 40, stops=())
@example(parts=[("a",), ("stop",), (THOUGHT,)], form="thinking", sizes=[40], stops=("stop",))
@given(
    parts=samples,
    form=st.sampled_from(FORMS),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    stops=st.sampled_from([(), ("stop",), ("op",), ("<",), ("\n",)]),
)
def test_all_pieces_together_are_the_whole_whatever_is_sampled(renderers, tokenizer, parts, form, sizes, stops):
    renderer = renderers[form]
    ids = [
        i
        for part in parts
        for i in ([part] if isinstance(part, int) else chain(*(tokenizer.encode(x).ids for x in part)))
    ]
    ids = [*(i for i in ids if i not in renderer.stop_token_ids), *renderer.stop_token_ids]

    def read(some):
        message = renderer.parse(some)
        return Parsed(renderer.thinking(message), renderer.spoken(message).content or "", message.tool_calls)

    async def sampled():
        at = 0
        for size in [*sizes, len(ids)]:
            if at < len(ids):
                yield Sampled(tuple(ids[at : at + size]), tuple(map(float, range(at, min(at + size, len(ids))))))
            at += size
        yield Sampled((), (), "stop")

    async def collect():
        return [chunk async for chunk in chunks(sampled(), read, renderer.stop_token_ids, stops, renderer.tags)]

    found, whole = asyncio.run(collect()), read(ids)
    *before, last = found
    assert last.end and not any(chunk.end for chunk in before)
    assert not any(chunk.thinking and (chunk.text or chunk.end) for chunk in found)
    told = [i for chunk in found for i in chunk.token_ids]
    assert told == [i for i in ids[: last.end.tokens] if i not in renderer.stop_token_ids]
    assert [lp for chunk in found for lp in chunk.logprobs] == [float(i) for i in range(len(told))]
    thinking, text = "".join(chunk.thinking for chunk in found), "".join(chunk.text for chunk in found)
    if stops and stops[0] in whole.text:
        assert text == whole.text.partition(stops[0])[0]
        assert (last.end.finish_reason, last.end.calls) == ("stop", ())
        assert thinking == read(ids[: last.end.tokens]).thinking
    else:
        assert (thinking, text, last.end.calls) == whole
        assert last.end.finish_reason == ("tool_calls" if whole.calls else "stop")
