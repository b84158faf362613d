"""What a client may do to a gateway with one request, and who may ask at all."""

import json
import logging
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from staging import CHAT, asked, until

from trace_jax.contract.files import read_records
from trace_jax.contract.routing import RouteDecision
from trace_jax.errors import UserError
from trace_jax.gateway import body
from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.keys import Keys, read_keys


def refused_without_a_key(keys: Keys) -> bool:
    try:
        return bool(keys.check({}))
    except ApiError:
        return True


def test_keys_are_those_of_the_variable_or_the_file_and_never_none_unsaid(monkeypatch, tmp_path):
    monkeypatch.delenv("TRACE_API_KEYS", raising=False)
    assert not refused_without_a_key(read_keys(""))
    monkeypatch.setenv("TRACE_API_KEYS", "one, two")
    assert read_keys("").check({"authorization": "Bearer two"}) == "key1" and refused_without_a_key(read_keys(""))
    for nothing in ("", " , "):
        monkeypatch.setenv("TRACE_API_KEYS", nothing)
        with pytest.raises(UserError, match="TRACE_API_KEYS is set and holds no API key"):
            read_keys("")
    (tmp_path / "keys").write_text("three\n\n")
    assert read_keys(str(tmp_path / "keys")).check({"authorization": "Bearer three"}) == "key0"
    (tmp_path / "keys").write_text(" \n")
    with pytest.raises(UserError, match="holds no API key: write one a line"):
        read_keys(str(tmp_path / "keys"))


def test_a_reason_quotes_little_of_a_request(stage):
    with stage() as stage:
        assert stage.post({"model": "tiny", "messages": [{"role": "x" * 500_000}]})[0] == 200
        part = {"type": "y" * 500_000}
        assert stage.post({"model": "tiny", "messages": [{"role": "user", "content": [part]}]})[0] == 200
    written = list(read_records(stage.directory / "decisions.jsonl", RouteDecision))
    assert len(written) == 2 and all("xxx" in decision.reason or "yyy" in decision.reason for decision in written)
    assert max(len(decision.reason) for decision in written) <= 200


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_body_that_is_nested_too_deeply_is_refused(stage, path):
    deep = b"[" * 2500 + b"]" * 2500
    with stage() as stage:
        body = b'{"model":"tiny","messages":[{"role":"user","content":"x","z":' + deep + b'}],"prompt":' + deep + b"}"
        status, _, answer = stage.post(body, path)
        message = json.loads(answer)["error"]["message"]
        assert status == 400 and ("nested too deeply" in message or "outside the vocabulary" in message)
        assert stage.metric(f'requests_total{{route="{path}",status="400"}}') == 1


def test_an_error_of_the_gateway_itself_is_told_without_its_text(stage, caplog, monkeypatch):
    word = f"w{np.random.default_rng().integers(10**9)}"

    def fail(*_):
        raise LookupError(word)

    with stage() as stage, caplog.at_level(logging.DEBUG, "trace_jax"):
        monkeypatch.setattr(stage.gateway.models, "resolve", fail)
        status, _, answer = stage.post(asked("hello"))
        assert status == 500 and json.loads(answer)["error"]["type"] == "server_error"
        assert stage.metric('requests_total{route="/v1/chat/completions",status="500"}') == 1
    assert word.encode() not in answer and word not in caplog.text
    assert "LookupError" in caplog.text and "in fail" in caplog.text


def test_without_the_header_a_conversation_is_decided_on_by_its_opening_and_with_it_by_all(stage):
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    turns.append({"role": "user", "content": "about refunds"})
    with stage() as stage:
        assert stage.post({"model": "tiny", "messages": turns})[1]["X-Trace-Adapter"] == "base"
        named = stage.post({"model": "tiny", "messages": turns}, X_Trace_Conversation="talk")
        assert named[1]["X-Trace-Adapter"] == "refunds"
        read = [[message.content for message in request.messages] for (request,) in stage.router.batches]
        assert read == [["one"], ["one", "two", "about refunds"]]


@pytest.mark.parametrize("name", ["\u00e9", "a\tb"])
def test_a_conversations_name_is_printable_ascii(stage, name):
    with stage() as stage:
        status, _, answer = stage.post(asked("orders"), X_Trace_Conversation=name)
        assert status == 400 and json.loads(answer)["error"]["param"] == "x-trace-conversation"


def test_a_body_that_does_not_come_frees_its_place(stage, monkeypatch):
    monkeypatch.setattr(body, "_SECONDS", 0.3)
    with stage() as stage:
        place, begun = urlsplit(stage.url), time.monotonic()
        with socket.create_connection((place.hostname, place.port), timeout=10) as client:
            client.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + b'{"model"')
            assert b" 408 " in client.recv(4096) and time.monotonic() - begun < 5.0
            until(lambda: stage.metric("requests_in_flight") == 0, 5.0)
