"""The gateway with the embedded engine, as the official client sees it, against the engine asked directly."""

import asyncio
import json

import numpy as np
import openai
import pytest
from served import ByWord, make_app, make_gateway, serving

from trace_jax.contract.files import read_records
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.gateway.embedded import EmbeddedBackend
from trace_jax.gateway.engine import EngineThread
from trace_jax.models.lora import merge

CAPACITY = 192
TOOLS = [{"type": "function", "function": {"name": "refund", "parameters": {"type": "object", "properties": {}}}}]


def new_engine(decoder, config, renderer):
    settings = EngineSettings(slots=8, capacity=CAPACITY)
    return EmbeddedEngine(decoder, config, renderer.stop_token_ids, settings, max_rank=9, max_adapters=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def url(decoder, config, renderer, tokenizer, held, directory):
    async def make(stack):
        thread = stack.enter_context(EngineThread(new_engine(decoder, config, renderer)))
        backend = EmbeddedBackend("tiny", thread, renderer, tokenizer, forms={}, capacity=CAPACITY, max_rank=8)
        return make_app(await make_gateway(stack, backend, ByWord(tuple(held)), held, config, directory))

    with serving(make) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def direct(decoder, config, renderer, loras):
    """Asks an engine of the same weights, without any gateway."""
    engine = new_engine(decoder, config, renderer)
    for name, lora in loras.items():
        engine.set_adapter(name, lora)
    engine.set_adapter("refunds+orders", merge([loras["refunds"], loras["orders"]], [1.0, 1.0]))

    def ask(said: str, sampling: Sampling, adapter: str | None = None) -> Completion:
        prompt = renderer.prompt([Message(role="user", content=said)], ())
        return asyncio.run(engine.generate(prompt, sampling, adapter))

    return ask


def ask(client, said, model="tiny", **options):
    return client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": said}], max_tokens=24, **options
    )


def said_by(renderer, completion):
    return renderer.parse(completion.token_ids)


def test_an_engine_that_ends_lets_nobody_wait_and_logs_nothing(decoder, config, renderer, caplog):
    prompt = renderer.prompt([Message(role="user", content="cancel")], ())

    async def leave():
        with EngineThread(new_engine(decoder, config, renderer)) as thread:
            streams = [thread.stream(prompt, Sampling(160, 1.0, seed), None) for seed in range(20)]
            waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
            await waiting[0]
        return await asyncio.gather(*waiting, return_exceptions=True)

    ended = asyncio.run(leave())
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in ended)
    assert not caplog.records


def test_models_are_the_routed_one_its_base_and_the_adapters(client):
    assert [model.id for model in client.models.list()] == ["tiny", "gpt-4o", "base", "refunds", "orders", "sums"]
    assert client.models.retrieve("refunds").id == "refunds"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'; there are tiny, gpt-4o, base"):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("model", "words", "adapter", "told"),
    [
        ("tiny", "order please", None, "base"),
        ("gpt-4o", "about refunds", "refunds", "refunds"),
        ("tiny", "refunds and orders", "refunds+orders", "1.000000*orders+1.000000*refunds"),
        ("base", "about refunds", None, "base"),
        ("tiny:sums", "about refunds", "sums", "sums"),
    ],
)
def test_reply_is_what_the_engine_samples_with_that_adapter(client, direct, renderer, model, words, adapter, told):
    seed = int(np.random.default_rng().integers(2**31))
    response = ask(client, words, model, seed=seed, temperature=0.7, logprobs=True)
    expected = direct(words, Sampling(24, 0.7, seed), adapter)
    assert response.headers["X-Trace-Adapter"] == told
    choice = response.parse().choices[0]
    assert (choice.message.content or "") == (said_by(renderer, expected).content or "")
    shown = [
        lp
        for token, lp in zip(expected.token_ids, expected.logprobs, strict=True)
        if token != renderer.stop_token_ids[0]
    ]
    np.testing.assert_allclose([entry.logprob for entry in choice.logprobs.content], shown, atol=2e-4)
    usage = response.parse().usage
    assert usage.completion_tokens == len(expected.token_ids) and usage.total_tokens > usage.completion_tokens


def test_streamed_pieces_are_the_whole_reply(client):
    for seed in np.random.default_rng().integers(2**31, size=12).tolist():
        common = dict(seed=seed, n=3, logprobs=True, tools=TOOLS, temperature=1.0)
        whole = ask(client, "cancel the order", **common).parse()
        texts, tokens, calls, reasons = {}, {}, {}, {}
        stream = ask(client, "cancel the order", **common, stream=True, stream_options={"include_usage": True}).parse()
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                told = choice.logprobs.content if choice.logprobs else []
                tokens.setdefault(choice.index, []).extend(entry.logprob for entry in told)
                calls.setdefault(choice.index, []).extend(choice.delta.tool_calls or [])
                reasons[choice.index] = choice.finish_reason
        assert chunk.usage == whole.usage
        assert len({choice.message.content for choice in whole.choices}) > 1  # choices have seeds of their own
        for choice in whole.choices:
            assert texts[choice.index] == (choice.message.content or "")
            assert tokens[choice.index] == [entry.logprob for entry in choice.logprobs.content]
            assert reasons[choice.index] == choice.finish_reason
            made = [(call.function.name, call.function.arguments) for call in calls[choice.index]]
            assert made == [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]


def test_stop_ends_the_text_before_it(client):
    whole = ask(client, "cancel the order", seed=5, temperature=0.0).parse().choices[0].message.content
    assert len(whole) > 8
    stop = whole[4:6]
    for stream in (False, True):
        got = ask(client, "cancel the order", seed=5, temperature=0.0, stop=[stop, "never"], stream=stream).parse()
        if stream:
            chunks = [chunk.choices[0] for chunk in got]
            text, reason = "".join(c.delta.content or "" for c in chunks), chunks[-1].finish_reason
        else:
            text, reason = got.choices[0].message.content or "", got.choices[0].finish_reason
        assert text == whole[: whole.index(stop)] and reason == "stop"


def test_completions_sample_after_the_prompt_itself(client, decoder, config, renderer, tokenizer):
    prompt = "please cancel the order"
    expected = asyncio.run(
        new_engine(decoder, config, renderer).generate(tuple(tokenizer.encode(prompt).ids), Sampling(12, 0.0))
    )
    for given in (prompt, tokenizer.encode(prompt).ids):
        found = client.completions.create(model="base", prompt=given, max_tokens=12, temperature=0.0, logprobs=0)
        assert found.choices[0].text == tokenizer.decode(list(expected.token_ids), skip_special_tokens=True)
        kept = len([token for token in expected.token_ids if token not in renderer.stop_token_ids])
        np.testing.assert_allclose(found.choices[0].logprobs.token_logprobs, expected.logprobs[:kept], atol=2e-4)
    stream = client.completions.create(model="base", prompt=prompt, max_tokens=12, temperature=0.0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == found.choices[0].text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_p": 0.9}, "top_p"),
        ({"tool_choice": "required", "tools": TOOLS}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
        ({"extra_body": {"min_p": 0.1}}, "min_p"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(client, options, field):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, "order", **options)
    assert refusal.value.param == field


def test_no_room_and_unreadable_messages_are_refused(client):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, "order " * 300)
    assert refusal.value.code == "context_length_exceeded"
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError, match="content part of type 'image_url'"):
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": picture}])


@pytest.mark.parametrize("prompt", ["", []])
def test_a_prompt_of_nothing_is_refused(client, prompt):
    with pytest.raises(openai.BadRequestError, match="prompt is empty") as refusal:
        client.completions.create(model="base", prompt=prompt)
    assert refusal.value.param == "prompt"


def test_streams_may_go_without_padding(client):
    stream = ask(client, "order", stream=True, stream_options={"include_obfuscation": False}).parse()
    assert [chunk.choices[0].finish_reason for chunk in stream][-1]


def test_many_conversations_at_once_each_as_alone(url, direct, renderer):
    said = [f"order {i} refunds" if i % 2 else f"order {i}" for i in range(16)]

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asked = (
                client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": words}], max_tokens=12, temperature=0.0
                )
                for words in said
            )
            return await asyncio.gather(*asked)

    for words, reply in zip(said, asyncio.run(all_of_them()), strict=True):
        alone = direct(words, Sampling(12, 0.0), "refunds" if "refunds" in words else None)
        assert (reply.choices[0].message.content or "") == (said_by(renderer, alone).content or "")


def test_decisions_are_on_record(client, directory):
    name = f"talk-{np.random.default_rng().integers(10**9)}"
    ask(client, "sums and refunds", extra_headers={"X-Trace-Conversation": name})
    ask(client, "orders", extra_headers={"X-Trace-Conversation": name})  # a later turn: no second decision
    written = [d for d in read_records(directory / "decisions.jsonl", RouteDecision) if d.conversation == name]
    assert [decision.adapters for decision in written] == [{"refunds": 1.0, "sums": 1.0}]


def test_history_with_calls_is_read_back(client, direct, renderer, decoder, config):
    call = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": json.dumps({"amount": 3})}}
    history = [
        {"role": "user", "content": "cancel"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    reply = client.chat.completions.create(model="base", messages=history, tools=TOOLS, temperature=0.0, max_tokens=12)
    messages = [
        Message(role="user", content="cancel"),
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="refund", arguments={"amount": 3}),)),
        Message(role="tool", content="done", tool_call_id="c1"),
    ]
    engine = new_engine(decoder, config, renderer)
    expected = asyncio.run(engine.generate(renderer.prompt(messages, ()), Sampling(12, 0.0)))
    assert (reply.choices[0].message.content or "") == (said_by(renderer, expected).content or "")
