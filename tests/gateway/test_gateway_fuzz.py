"""Bodies that nobody foresaw: each gets a 2xx, or a 4xx in OpenAI's error shape, and streams keep their form."""

import copy
import http.client
import json
import random
import socket
from urllib.parse import urlsplit

import pytest
from scripted import Scripted, scripted_gateway
from staging import CHAT

from trace_jax.contract.trajectory import Message, ToolCall

TEXT = "/v1/completions"
CALL = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": '{"amount": 3}'}}
TOOL = {"type": "function", "function": {"name": "refund", "description": "Pay.", "parameters": {"type": "object"}}}
SEEDS = [
    (CHAT, {"model": "tiny", "messages": [{"role": "user", "content": "cancel"}], "max_tokens": 8}),
    (
        CHAT,
        {
            "model": "base", "stream": True, "stream_options": {"include_usage": True}, "n": 2, "seed": 3,
            "logprobs": True,
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
                {"role": "tool", "tool_call_id": "c1", "content": "ok"},
                {"role": "assistant", "content": "so", "reasoning_content": "why"},
            ],
            "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False, "temperature": 0.5, "stop": ["an"],
        },
    ),
    (TEXT, {"model": "base", "prompt": "cancel the order", "stream": True, "stop": "x", "logprobs": 0}),
    (TEXT, {"model": "tiny", "prompt": [7, 8, 9], "max_tokens": 3, "temperature": 0}),
]  # fmt: skip
ODD = [
    None, True, False, 0, -1, 1, 2, 1e308, -0.0, 10**18, 10**400, "", "x", "\ud83d", "\udc00x", "\0", "😀" * 3,
    "a" * 3000, [], {}, [[]], [None], {"": None}, {"type": "text", "text": 3}, ["\ud83d"], float("nan"), float("inf"),
    "auto", "none",
]  # fmt: skip
KEYS = ["model", "stream", "stop", "n", "tools", "input_ids", "lora_path", "chat_template_kwargs", "response_format",
        "reasoning_effort", "user", "function_call", "\ud800", "", "stop_token_ids", "prompt", "messages"]  # fmt: skip


def places(value, above=None, key=None):
    """Each place in a document, as the container and the key in it."""
    if above is not None:
        yield above, key
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, value, name)


def mutated(rng: random.Random) -> tuple[str, bytes]:
    path, fields = rng.choice(SEEDS)
    document = json.loads(json.dumps(fields))
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not document:
            break
        above, key = rng.choice(list(places(document)))
        match rng.randrange(6):
            case 0 | 1:
                above[key] = copy.deepcopy(rng.choice(ODD))
            case 2:
                del above[key]
            case 3:
                above[key] = [above[key]] * rng.choice([1, 2, 40])
            case 4:
                document[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODD))
            case 5:
                for _ in range(rng.choice([1, 5, 300])):
                    above[key] = {rng.choice(KEYS): above[key]}
    body = bytearray(json.dumps(document, ensure_ascii=True).encode())
    if rng.random() < 0.3:
        for _ in range(rng.choice([1, 3])):
            at = rng.randrange(len(body))
            match rng.randrange(3):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    del body[at : at + rng.randrange(1, 30)]
                case 2:
                    body[at:at] = body[at : at + 10]
            if not body:
                break
    return rng.choice([path, path, path, CHAT, TEXT]), bytes(body)


def check_stream(data: bytes) -> None:
    """Each choice ends once and says nothing behind its end; the stream ends with ``[DONE]``."""
    *events, done, rest = data.decode().split("\n\n")
    assert done == "data: [DONE]" and not rest
    ended = set()
    for event in events:
        chunk = json.loads(event.removeprefix("data: "))
        assert chunk["object"] in ("chat.completion.chunk", "text_completion")
        for choice in chunk["choices"]:
            assert choice["index"] not in ended
            if choice["finish_reason"]:
                ended.add(choice["index"])
    assert ended


def check(status: int, kind: str, data: bytes, path: str, body: bytes) -> None:
    assert 200 <= status < 500, (status, data[:300], path, body[:2000])
    if status >= 400:
        error = json.loads(data)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], (data, path, body[:2000])
    elif kind.startswith("text/event-stream"):
        check_stream(data)
    else:
        choices = json.loads(data)["choices"]
        assert choices and all(choice["finish_reason"] for choice in choices)


def fuzz(url: str, seed: int, number: int) -> dict[int, int]:
    """Counts of statuses."""
    rng, found = random.Random(seed), {}
    place = urlsplit(url)
    client = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    for _ in range(number):
        path, body = mutated(rng)
        client.request("POST", path, body)
        response = client.getresponse()
        data = response.read()
        check(response.status, response.headers["content-type"], data, path, body)
        found[response.status] = found.get(response.status, 0) + 1
    client.close()
    return found


@pytest.fixture(scope="module")
def url(renderer, tokenizer, tmp_path_factory):
    calls = (ToolCall(id="c", name="refund", arguments={"an": 1}), ToolCall(id="c", name="refund", arguments={}))
    engine = Scripted(at_once=2)
    engine.says = renderer.assistant(Message(role="assistant", content="cancel an order", tool_calls=calls))
    with scripted_gateway(engine, renderer, tokenizer, tmp_path_factory.mktemp("fuzz"), capacity=300) as url:
        yield url


def test_a_thousand_bodies_before_the_embedded_engine(url):
    found = fuzz(url, 0, 1000)
    assert found[200] > 50 and found[400] > 300


@pytest.mark.slow
def test_twenty_thousand_bodies_before_the_embedded_engine(url):
    for seed in range(1, 21):
        fuzz(url, seed, 1000)


def test_bodies_before_servers(stage, caplog):
    with stage() as stage:
        rng = random.Random(0)
        for _ in range(300):
            path, body = mutated(rng)
            status, _, data = stage.post(body, path)
            assert 200 <= status < 500, (status, data[:300], path, body[:2000])
            if status >= 400 and status != 418:
                assert json.loads(data)["error"]["message"]
        assert stage.metric("requests_in_flight") == 0


HEADS = [
    b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/models/%00%ff%2e%2e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /v1/models/\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.0\r\nHost: x\r\nAuthorization: \xff\r\nContent-Length: 2\r\n\r\n{}",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_heads_that_are_no_http_are_refused_in_openais_shape(url, head):
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as client:
        client.sendall(head)
        if not head:
            client.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := client.recv(4096):
                received += part
        except ConnectionResetError:
            pass
    last = received.rpartition(b"HTTP/1.1 ")[2]
    if last and not last.startswith(b"2"):
        status, text = int(last[:3]), last.partition(b"\r\n\r\n")[2]
        assert 400 <= status < 500 and json.loads(text)["error"]["message"]
    healthy = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    healthy.request("GET", "/health")
    assert healthy.getresponse().status == 200
