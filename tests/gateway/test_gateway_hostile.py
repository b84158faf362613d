"""Clients that hold connections, bodies and prompts against the gateway; other clients are served all the same."""

import asyncio
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from scripted import Scripted, scripted_gateway
from served import ByWord, serving
from staging import CHAT, asked, until

from trace_jax.contract.trajectory import Message
from trace_jax.gateway import body, connections
from trace_jax.gateway.connections import guarded
from trace_jax.gateway.limits import Limits


def connect(url) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=30)


def health(url) -> int:
    with urllib.request.urlopen(url + "/health", timeout=30) as answer:
        return answer.status


def closed(client: socket.socket) -> bytes:
    """What still comes before the other side closes the connection."""
    received = b""
    try:
        while part := client.recv(1 << 20):
            received += part
    except ConnectionResetError:
        pass
    return received


async def answer(scope, receive, send):
    """An application that reads the body, and answers with its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(size).encode() * (1 if scope["path"] == "/" else 1 << 20)})


async def make_answer(stack):
    return answer


@pytest.mark.parametrize("drip", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\n\r\nGET /"])
def test_a_head_that_does_not_come_in_time_closes_the_connection(monkeypatch, drip):
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    with serving(make_answer) as url, connect(url) as client:
        client.sendall(drip)
        begun = time.monotonic()
        while time.monotonic() - begun < 20:  # bytes that come one by one do not win more time
            try:
                client.settimeout(0.1)
                if not client.recv(4096):
                    return
            except TimeoutError:
                try:
                    client.sendall(b"x" if drip else b"")
                except (BrokenPipeError, ConnectionResetError):
                    return
            except ConnectionResetError:
                return
    pytest.fail("it stays open")


def test_a_response_that_nobody_reads_closes_the_connection(monkeypatch):
    monkeypatch.setattr(connections, "_STALLED_SECONDS", 0.2)
    with serving(make_answer) as url, connect(url) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789" * 40)
        time.sleep(0.8)
        assert len(closed(client)) < 40 << 20
        assert urllib.request.urlopen(url, timeout=30).read() == b"0"


def test_idle_connections_make_room_for_new_ones(monkeypatch):
    with serving(make_answer, http=guarded(8)) as url, ExitStack() as stack:
        idle = [stack.enter_context(connect(url)) for _ in range(40)]
        for _ in range(20):
            assert urllib.request.urlopen(url, timeout=30).read() == b"0"
        assert closed(idle[0]) == b""  # the oldest has gone


def test_a_connection_for_which_there_is_no_room_hears_so_in_openais_shape():
    begun, over = [], threading.Event()

    async def make_slow(stack):
        async def slow(scope, receive, send):
            begun.append(await receive())
            while not over.is_set():
                await asyncio.sleep(0.01)
            await answer(scope, receive, send)

        return slow

    with serving(make_slow, http=guarded(2)) as url, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(url)).sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(begun) == 2)
        with connect(url) as client:
            head, _, text = closed(client).partition(b"\r\n\r\n")
        over.set()
        assert b" 503 " in head and json.loads(text)["error"]["type"] == "server_error"


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 17])
def test_a_body_in_chunks_arrives_whole_and_in_order(size):
    data = bytes(range(256)) * (64 if size < 1000 else 1024)
    parts = [data[at : at + size] for at in range(0, len(data), size)]

    async def make_echo(stack):
        async def echo(scope, receive, send):
            received, more = b"", True
            while more:
                message = await receive()
                received, more = received + message["body"], message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b"same" if received == data else b"other"})

        return echo

    with serving(make_echo) as url, connect(url) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n")
        assert b"\r\nsame\r\n" in closed(client)


def test_requests_in_one_piece_are_answered_one_after_the_other():
    sizes = [*range(2000, 2020)]
    heads = [f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() for size in sizes]
    with serving(make_answer) as url, connect(url) as client:
        client.sendall(b"".join(head + b"x" * size for head, size in zip(heads, sizes, strict=True)))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = closed(client)
    assert [int(size) for size in re.findall(rb"\r\n(20\d\d)(?=\r\n)", received)] == sizes


def test_bodies_that_do_not_come_take_no_place(stage):
    with stage(limits=Limits(1 << 20, 2, 60.0)) as stage, ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(connect(stage.url))
            client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + b'{"model"')
        assert stage.post(asked("orders"))[0] == 200
        assert stage.metric("requests_in_flight") == 0


def test_bodies_are_bounded_together(stage, monkeypatch):
    monkeypatch.setattr(body, "_HELD", 2)
    with stage(limits=Limits(1000, 64, 60.0)) as stage, ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(connect(stage.url))
            client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 990)
        time.sleep(0.5)
        status, headers, answer = stage.post(asked("orders"))
        assert status == 429 and headers["retry-after"] == "1" and b"too large together" in answer


ACCENTS = "a" + "\u0301\u0323" * 200_000  # Python composes them in minutes, and nothing else runs meanwhile


@pytest.mark.parametrize(
    "said", ["please cancel the order " * 70, "x" * 200_000, ACCENTS], ids=["few", "many", "accents"]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_prompt_far_beyond_the_capacity_is_refused_before_it_is_routed(renderer, tokenizer, tmp_path, said, path):
    engine, router = Scripted(), ByWord(())
    with scripted_gateway(engine, renderer, tokenizer, tmp_path, capacity=128, router=router) as url:
        fields = {"messages": [{"role": "user", "content": said}]} if path == CHAT else {"prompt": said}
        data = json.dumps({"model": "tiny", **fields}, ensure_ascii=False).encode()
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(url + path, data, timeout=30)
        error = json.loads(refusal.value.read())["error"]
        assert refusal.value.code == 400 and error["code"] == "context_length_exceeded"
        assert error["param"] == ("messages" if path == CHAT else "prompt") and not engine.prompts
        assert not router.batches


@pytest.mark.parametrize("size", [1 << 21, 12 << 20])
def test_a_client_that_sends_too_much_before_it_reads_sees_why_it_is_refused(stage, size):
    with stage(limits=Limits(1 << 20, 4, 60.0)) as stage:
        for _ in range(3):
            status, _, answer = stage.post(b"x" * size)
            assert status == 413 and b"larger than 1048576 bytes" in answer


@pytest.mark.parametrize(("tokens", "status"), [(127, 200), (128, 400)])
def test_only_prompts_that_do_not_fit_are_refused(renderer, tokenizer, tmp_path, tokens, status):
    """The longest word of the vocabulary: hardly any other prompt of as many tokens has more characters."""
    word = max((token for token in tokenizer.get_vocab() if token.isalpha()), key=len)
    said = tokenizer.decode([tokenizer.token_to_id(word)]) * tokens
    assert len(word) > 6 and tokenizer.encode(said).ids == [tokenizer.token_to_id(word)] * tokens
    engine = Scripted(says=renderer.assistant(Message(role="assistant", content="a")))
    with scripted_gateway(engine, renderer, tokenizer, tmp_path, capacity=128) as url:
        data = json.dumps({"model": "base", "prompt": said, "max_tokens": 1}).encode()
        try:
            with urllib.request.urlopen(url + "/v1/completions", data, timeout=60) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            assert error.code == status


def test_servers_are_not_asked_for_a_prompt_that_none_has_room_for(stage):
    with stage() as stage:  # servers of 4,096 tokens
        for fields in (
            {"messages": [{"role": "user", "content": "please " * 40_000}]},
            {"messages": [{"role": "user", "content": "a b " * 3_000}]},
            {"prompt": "please " * 40_000},
            {"prompt": [7] * 4096},
            {"prompt": [[7], [7] * 4096]},
        ):
            path = CHAT if "messages" in fields else "/v1/completions"
            status, _, answer = stage.post({"model": "tiny", **fields}, path)
            assert status == 400 and json.loads(answer)["error"]["code"] == "context_length_exceeded"
        assert not stage.upstreams[0].calls and not stage.router.batches


def test_others_are_served_while_one_sends_all_it_can(stage):
    with stage(limits=Limits(16 << 20, 64, 60.0)) as stage, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connect(stage.url)).sendall(b"POST / HTTP/1.1\r\nHost:")
        stage.upstreams[0].delay = 0.2
        streams = [stack.enter_context(connect(stage.url)) for _ in range(20)]
        data = json.dumps(asked("orders", stream=True)).encode()
        for stream in streams:
            stream.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        until(lambda: stage.metric("requests_in_flight") == 20)
        large = stack.enter_context(connect(stage.url))
        text = b'{"model":"base","x":[' + b"[]," * (3 << 20) + b"0]}"
        large.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        assert health(stage.url) == 200
        assert b" 400 " in large.recv(100)
        until(lambda: stage.metric("requests_in_flight") == 0)
