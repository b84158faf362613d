"""The gateway in front of a real SGLang server, by the official client: what it answers is what the server answers."""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import openai
import pytest
from real_server import CONFIG, MAX_RANK, new_engine, random_lora
from tokenizers import Tokenizer

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.gateway.adapters import Held
from trace_jax.gateway.labels import ServerReader
from trace_jax.gateway.sglang import SGLangBackend
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import merge
from trace_jax.routing.features import PromptReader

sys.path.append(str(Path(__file__).parents[1] / "gateway"))
from served import ByWord, make_app, make_gateway, serving  # noqa: E402

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORAS = {"refunds": random_lora(11, 4, ALL), "orders": random_lora(12, 2, ALL), "sums": random_lora(13, MAX_RANK, ALL)}
PARAMETERS = {
    "type": "object", "properties": {"whole": {"enum": [True, False]}}, "required": ["whole"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "refund", "strict": True, "parameters": PARAMETERS}}


def post(url: str, path: str, body: dict) -> bytes:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def url(server, renderer, tmp_path_factory):
    directory, held = tmp_path_factory.mktemp("gateway"), {}
    for name, lora in LORAS.items():
        save_peft(lora, CONFIG, directory / name, "base")
        held[name] = Held(directory / name, lora.rank)

    async def make(stack):
        engine = new_engine(server)
        backend = SGLangBackend(engine, await engine.server_info(), CONFIG.vocab_size, renderer, 64.0)
        gateway = await make_gateway(stack, backend, ByWord(tuple(held)), held, CONFIG, directory)
        return make_app(gateway)

    with serving(make) as url:
        yield url
    for card in json.loads(urllib.request.urlopen(server.url + "/v1/models").read())["data"]:
        if str(card["root"]).startswith(str(directory)):
            post(server.url, "/unload_lora_adapter", {"lora_name": card["id"]})


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def direct(server, url):
    """The server itself, and its name for each adapter."""
    cards = json.loads(urllib.request.urlopen(server.url + "/v1/models").read())["data"]
    base = cards[0]["id"]
    names = {card["id"].partition("-")[0]: f"{base}:{card['id']}" for card in cards[1:]}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client, {"base": base, **names}


def asked(said: str, **fields):
    return {"messages": [{"role": "user", "content": said}], "temperature": 0.0, "max_tokens": 12, **fields}


def assert_same(found, expected) -> None:
    """Equal but for what names the request, its time and the model, and for rounding of log-probabilities."""
    numbers: list[list[float]] = []

    def flat(value):
        if isinstance(value, dict):
            return {key: flat(part) for key, part in value.items()}
        if isinstance(value, list):
            return [flat(part) for part in value]
        if isinstance(value, float):
            numbers[-1].append(value)
            return float
        return value

    texts = []
    for answer in (found, expected):
        numbers.append([])
        texts.append(flat(answer.model_dump(exclude={"id", "created", "metadata", "model"})))
    assert texts[0] == texts[1]
    np.testing.assert_allclose(*numbers, atol=1e-4)


@pytest.mark.parametrize("words", ["please order", "about refunds", "about sums"])
def test_routed_answers_are_the_servers_own(client, direct, words):
    name = next((name for name in LORAS if name in words), "base")
    fields = asked(words, logprobs=True, top_logprobs=3, n=2, seed=3, stop=["zzz"])
    response = client.chat.completions.with_raw_response.create(model=direct[1]["base"], **fields)
    assert response.headers["X-Trace-Adapter"] == name
    assert_same(response.parse(), direct[0].chat.completions.create(model=direct[1][name], **fields))


def test_each_adapter_changes_the_log_probabilities(client):
    def logprobs(model):
        answer = client.chat.completions.create(model=model, **asked("please order", max_tokens=1, logprobs=True))
        return answer.choices[0].logprobs.content[0].logprob

    assert len({round(logprobs(model), 4) for model in ("base", *LORAS)}) == 1 + len(LORAS)


def test_streams_are_the_servers_own(client, direct):
    fields = asked("about refunds", stream=True, stream_options={"include_usage": True})
    found = list(client.chat.completions.create(model=direct[1]["base"], **fields))
    expected = list(direct[0].chat.completions.create(model=direct[1]["refunds"], **fields))
    text = ["".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) for chunks in (found, expected)]
    assert text[0] == text[1] and found[-1].usage.completion_tokens == expected[-1].usage.completion_tokens > 0


def test_asynchronous_client_with_many_conversations(url, direct):
    said = [f"please {'refunds' if i % 3 == 0 else 'orders' if i % 3 == 1 else 'nothing'} {i}" for i in range(12)]

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asks = (client.chat.completions.create(model=direct[1]["base"], **asked(words)) for words in said)
            return await asyncio.gather(*asks)

    for words, answer in zip(said, asyncio.run(ask_all()), strict=True):
        name = next((name for name in LORAS if name in words), "base")
        alone = direct[0].chat.completions.create(model=direct[1][name], **asked(words))
        assert answer.choices[0].message.content == alone.choices[0].message.content


def test_tools_go_through_and_calls_come_back(client, direct, model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    spaces = [i for i in range(tokenizer.get_vocab_size()) if tokenizer.decode([i]).isspace()]
    bias = {str(i): -100 for i in spaces}  # a random model would fill its JSON with them
    fields = asked("about refunds", tools=[TOOL], tool_choice="required", logit_bias=bias, max_tokens=100)
    found = client.chat.completions.create(model=direct[1]["base"], **fields)
    expected = direct[0].chat.completions.create(model=direct[1]["refunds"], **fields)
    call, same = found.choices[0].message.tool_calls[0], expected.choices[0].message.tool_calls[0]
    assert call.function == same.function and call.function.name == "refund"
    streamed = client.chat.completions.create(model=direct[1]["base"], stream=True, **fields)
    pieces = [piece for c in streamed for choice in c.choices for piece in choice.delta.tool_calls or ()]
    written = "".join(piece.function.arguments or "" for piece in pieces if piece.index == 0)
    assert json.loads(written) == json.loads(call.function.arguments)
    assert json.loads(call.function.arguments).keys() == {"whole"}


def test_a_merge_computes_the_sum(client, decoder, model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tuple(tokenizer.encode("refunds and orders of the customer").ids)
    engine = EmbeddedEngine(decoder, CONFIG, (), EngineSettings(slots=2, capacity=128))
    engine.set_adapter("sum", merge([LORAS["orders"], LORAS["refunds"]], [1.0, 1.0]))
    expected = asyncio.run(engine.generate(ids, Sampling(8, 0.0), "sum"))
    response = client.completions.with_raw_response.create(
        model=client.models.list().data[0].id, prompt="refunds and orders of the customer", max_tokens=8,
        temperature=0.0, logprobs=1, extra_body={"ignore_eos": True},
    )  # fmt: skip
    assert response.headers["X-Trace-Adapter"] == "1.000000*orders+1.000000*refunds"
    np.testing.assert_allclose(response.parse().choices[0].logprobs.token_logprobs, expected.logprobs, atol=1e-4)


def test_a_merge_above_the_servers_rank_is_served_by_the_base(client):
    response = client.chat.completions.with_raw_response.create(
        model=client.models.list().data[0].id, **asked("refunds and sums")
    )
    assert response.headers["X-Trace-Adapter"] == "base"


def test_labels_read_from_the_server_are_the_decoders(server, decoder):
    rng = np.random.default_rng()
    prompts = [rng.integers(7, CONFIG.vocab_size, size=size).tolist() for size in (3, 17, 40)]
    labels = rng.choice(CONFIG.vocab_size, size=5, replace=False).tolist()

    async def read():
        reader = ServerReader(new_engine(server), 256, asyncio.get_running_loop())
        return await asyncio.to_thread(reader.next_logprobs, prompts, labels)

    found = asyncio.run(read())
    np.testing.assert_allclose(found, PromptReader(decoder).next_logprobs(prompts, labels), atol=1e-4)


def test_a_client_that_hangs_up_frees_the_server(url, server):
    def running() -> float:
        lines = urllib.request.urlopen(server.url + "/metrics").read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("sglang:num_running_reqs{"))

    for stream in (True, False):
        body = asked("please order", model="base", stream=stream, max_tokens=6000, ignore_eos=True)
        request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode())
        with pytest.raises(TimeoutError):
            with urllib.request.urlopen(request, timeout=3) as answer:
                begun = time.monotonic()
                while time.monotonic() < begun + 3 and answer.read1():
                    pass
                raise TimeoutError
        end = time.monotonic() + 30
        while running():
            assert time.monotonic() < end, "the server still works for a client that has gone"
            time.sleep(0.5)


def test_what_would_kill_the_server_does_not_reach_it(client):
    with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
        client.completions.create(model="base", prompt=[1, CONFIG.vocab_size], max_tokens=1)
    assert client.completions.create(model="base", prompt=[7, 8, 9], max_tokens=1).usage.completion_tokens == 1


def test_errors_are_the_servers_own(client, direct):
    errors = []
    for asks, name in ((client, "base"), (direct[0], direct[1]["base"])):
        with pytest.raises(openai.BadRequestError) as error:
            asks.chat.completions.create(model=name, **asked("order", temperature=-3.0))
        errors.append(error.value.body)
    assert errors[0] == errors[1]
