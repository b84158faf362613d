"""Qwen3 behind the gateway: a real server reads the tokens that adapters were trained on."""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3_tokenizer import CONTROL, TAGS, small_tokenizer
from real_server import CONFIG, RealServer, running, sglang_server
from tokenizers import Tokenizer

from trace_jax.chat.qwen3 import Form, Qwen3Renderer
from trace_jax.chat.tokenizer import save_tokenizer
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.errors import EngineError
from trace_jax.gateway.sglang import SGLangBackend
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import save

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS / "gateway"))
from served import ByWord, make_app, make_gateway, serving  # noqa: E402

TEMPLATE = (TESTS / "chat" / "templates" / "qwen3.jinja").read_text()
SIZE, KEY = 420, "only-for-this-test"
FORMS: dict[bool, Form] = {True: "thinking", False: "no_thinking"}
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

pieces = st.sampled_from(["\n", "\n\n", "{}", '{"name": "', "assistant\n", "please refund", "é", "e\u0301", "now?"])
texts = st.lists(st.one_of(pieces, st.text(st.characters(exclude_categories=["Cs"]), max_size=5)), max_size=5)
texts = texts.map("".join).filter(lambda text: not any(token in text for token in (*CONTROL, *TAGS)))
words = st.text("abcdefg_", min_size=1, max_size=8)
calls = st.builds(
    lambda name, arguments: ToolCall(id="call_1", name=name, arguments=arguments),
    words,
    st.dictionaries(words, st.one_of(texts, st.integers(-99, 99), st.booleans(), st.none()), max_size=3),
)
turns = st.tuples(
    texts.map(lambda text: Message(role="user", content=text)),
    st.builds(
        lambda why, text, called: Message(
            role="assistant", content=f"<think>\n{why}\n</think>\n\n{text}" if why else text, tool_calls=tuple(called)
        ),
        st.one_of(st.just(""), texts.map(str.strip)),
        texts.map(str.strip),
        st.lists(calls, max_size=2),
    ),
    st.lists(texts.map(lambda text: Message(role="tool", content=text, tool_call_id="call_1")), max_size=2),
)
tools = st.lists(
    st.builds(
        lambda name, about, kind: Tool(
            name=name, description=about, parameters={"type": "object", "properties": {"ü<b>": {"type": kind}}}
        ),
        words,
        texts,
        st.sampled_from(["string", "integer"]),
    ),
    max_size=2,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer(SIZE)


@pytest.fixture(scope="module")
def qwen(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    directory = tmp_path_factory.mktemp("qwen") / "model"
    directory.mkdir()
    save_tokenizer(tokenizer, directory)
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    config = dataclasses.replace(CONFIG, vocab_size=SIZE)
    save(Decoder(config, nnx.Rngs(3)), config, directory)
    log = directory.parent / "server.log"
    with running(sglang_server(directory, log, "--reasoning-parser", "qwen3", "--api-key", KEY)) as server:
        yield server


@pytest.fixture(scope="module", params=[True, False], ids=["thinking", "not thinking"])
def hybrid(
    request: pytest.FixtureRequest, qwen: RealServer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[openai.OpenAI, Qwen3Renderer]]:
    """A gateway before the server, and the renderer of what was trained."""
    renderer, config = Qwen3Renderer(tokenizer, FORMS[request.param]), dataclasses.replace(CONFIG, vocab_size=SIZE)

    async def make(stack):
        engine = SGLangEngine([qwen.url], config, (), EngineSettings(), api_key=KEY)
        backend = SGLangBackend(engine, await engine.server_info(), SIZE, renderer, 64.0)
        directory = tmp_path_factory.mktemp("gateway")
        return make_app(await make_gateway(stack, backend, ByWord(()), {}, config, directory))

    with serving(make) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client, renderer


@pytest.fixture(scope="module")
def direct(qwen: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{qwen.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def written(message: Message) -> dict[str, Any]:
    """OpenAI's form."""
    given: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id:
        given["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        functions = [
            {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
            for call in message.tool_calls
        ]
        given["tool_calls"] = [{"type": "function", "id": "call_1", "function": function} for function in functions]
    return given


@SETTINGS
@given(st.one_of(st.none(), texts), st.lists(turns, min_size=1, max_size=3), st.booleans(), tools)
def test_chats_are_read_as_in_training(hybrid, direct, system, history, ends, offered) -> None:
    """Without tools by the server's own template too; with them that of SGLang 0.5.23 adds its own fields to each."""
    client, renderer = hybrid
    messages = [] if system is None else [Message(role="system", content=system)]
    for user, said, heard in history:
        messages += [user, said, *heard]
    if ends or messages[-1].role == "assistant":
        messages.append(Message(role="user", content="and now?"))
    functions = [{"type": "function", "function": tool.offered()} for tool in offered]
    asked = {"model": "base", "messages": [written(message) for message in messages], "max_tokens": 1}
    more = {"return_prompt_token_ids": True}
    answer = client.chat.completions.create(**asked, tools=functions or openai.omit, extra_body=more)
    assert tuple(answer.choices[0].prompt_token_ids) == renderer.prompt(messages, offered)
    more["chat_template_kwargs"] = renderer.chat_template_kwargs
    answer = direct.chat.completions.create(**asked, extra_body=more)
    assert tuple(answer.choices[0].prompt_token_ids) == renderer.prompt(messages, ())


def test_a_server_alone_writes_tools_otherwise(hybrid, direct) -> None:
    """The day that it does not, the gateway may leave prompts to it."""
    _, renderer = hybrid
    said, tool = Message(role="user", content="hi"), Tool(name="f", description="d", parameters={"type": "object"})
    answer = direct.chat.completions.create(
        model="base",
        messages=[written(said)],
        tools=[{"type": "function", "function": tool.offered()}],
        max_tokens=1,
        extra_body={"return_prompt_token_ids": True, "chat_template_kwargs": renderer.chat_template_kwargs},
    )
    found = tuple(answer.choices[0].prompt_token_ids)
    assert found != renderer.prompt([said], [tool])
    assert '"defer_loading": null' in small_tokenizer(SIZE).decode(found)


def test_a_server_asks_for_its_key(qwen: RealServer) -> None:
    engine = SGLangEngine([qwen.url], CONFIG, (), EngineSettings(), api_key="another")
    with pytest.raises(EngineError, match="answered 401: Unauthorized: set SGLANG_API_KEY"):
        asyncio.run(engine.server_info())
