"""What the gateway keeps of what it served: messages, once, for its owner alone, and told apart where they were cut."""

import json
import os
import socket
import stat
import time
from pathlib import Path

import openai
import pytest
from scripted import Scripted, scripted_gateway
from staging import CHAT, asked, until
from upstream import EVENTS

from trace_jax.analysis.served import read_conversations
from trace_jax.contract.files import read_records
from trace_jax.contract.served import ServedRequest
from trace_jax.contract.trajectory import Message, Policy, Tool, ToolCall

RECORDED = 1 << 20
REFUND = {"type": "function", "function": {"name": "refund", "description": "d", "parameters": {"type": "object"}}}
SECRET = "sk-client-secret"


def records(directory: Path) -> list[ServedRequest]:
    return list(read_records(directory / "conversations.jsonl", ServedRequest))


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def test_nothing_is_kept_unless_it_is_asked_for(stage, tmp_path) -> None:
    with stage() as served:
        assert served.post(asked("secret word"))[0] == 200
    assert not list(tmp_path.rglob("conversations*"))
    assert all(b"secret word" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_request_and_its_answer_are_kept_without_keys_and_headers(stage, tmp_path) -> None:
    before = time.time()
    with stage(record_bytes=RECORDED, keys=[SECRET]) as served:
        body = {**asked("orders please"), "tools": [REFUND], "user": "u-77", "temperature": 0.5}
        headers = {"Authorization": f"Bearer {SECRET}", "X_Trace_Conversation": "c1", "Cookie": "session=cookie-9"}
        assert served.post(body, **headers)[0] == 200
        assert served.metric("recorded_requests_total") in (0.0, 1.0)
    path = tmp_path / "conversations.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert not any(word in text for word in (SECRET, "session", "cookie-9", "uthorization", "u-77"))
    (record,) = records(tmp_path)
    assert record.conversation == "key0/c1" and before <= record.time <= time.time() and record.seconds > 0
    assert record.policy == Policy(base="base-revision", adapter="orders") and record.model == "tiny"
    assert record.messages == (Message(role="user", content="orders please"),) and record.repeats == 0
    assert record.tools == (Tool(name="refund", description="d", parameters={"type": "object"}),)
    (answer,) = record.answers
    assert answer.message == Message(role="assistant", content="hé") and answer.finish_reason == "stop"
    assert record.usage is None and record.cut is None and record.omitted is None


def test_a_file_that_others_could_read_is_closed_to_them(stage, tmp_path) -> None:
    path = tmp_path / "conversations.jsonl"
    path.touch()
    os.chmod(path, 0o644)
    with stage(record_bytes=RECORDED):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stream_is_put_together(stage, tmp_path) -> None:
    with stage(record_bytes=RECORDED) as served:
        status, _, body = served.post(asked("go", stream=True))
        assert status == 200 and body == b"".join(EVENTS)
    (record,) = records(tmp_path)
    (answer,) = record.answers
    call = ToolCall(id="c1", name="refund", arguments={})
    assert answer.message == Message(role="assistant", content="one two", tool_calls=(call,))
    assert answer.finish_reason == "tool_calls" and record.cut is None and record.policy.adapter is None


def test_what_was_said_before_is_not_written_again(stage, tmp_path) -> None:
    history = [user("first question")]
    with stage(record_bytes=RECORDED) as served:
        for number in range(4):
            assert (
                served.post({"model": "tiny", "messages": history, "tools": [REFUND]}, X_Trace_Conversation="c")[0]
                == 200
            )
            history = [*history, {"role": "assistant", "content": "hé", "refusal": None}, user(f"turn {number}")]
        until(lambda: len(records(tmp_path)) == 4)
        assert served.post({"model": "tiny", "messages": history[:-2]}, X_Trace_Conversation="c")[0] == 200  # once more
    found = records(tmp_path)
    assert [record.repeats for record in found] == [0, 2, 4, 6, 7]
    assert [len(record.messages) for record in found] == [1, 1, 1, 1, 0]
    assert [record.tools is None for record in found] == [False, True, True, True, False]
    conversation = read_conversations(tmp_path / "conversations.jsonl")["c"]
    assert conversation.fault is None
    whole = conversation.trajectory(1.0, "t")
    said = [message.content for message in whole.messages]
    assert said == ["first question", "hé", "turn 0", "hé", "turn 1", "hé", "turn 2", "hé"]
    assert whole.tools == () and whole.extra["requests"] == 5 and whole.policy.base == "base-revision"


def test_a_gateway_that_was_started_again_goes_on(stage, tmp_path) -> None:
    history = [user("question")]
    for _ in range(2):
        with stage(record_bytes=RECORDED) as served:
            assert served.post({"model": "tiny", "messages": history}, X_Trace_Conversation="c")[0] == 200
        history = [*history, {"role": "assistant", "content": "hé"}, user("more")]
    assert [record.repeats for record in records(tmp_path)] == [0, 0]
    conversation = read_conversations(tmp_path / "conversations.jsonl")["c"]
    assert conversation.fault is None and len(conversation.trajectory(0.0, "t").messages) == 4


def test_conversations_that_are_none_are_told(stage, tmp_path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:secret"}}]
    with stage(record_bytes=RECORDED) as served:
        for words in ("one", "two"):
            served.post(asked(words), X_Trace_Conversation="branch")
        served.post(
            {"model": "tiny", "messages": [{"role": "user", "content": picture}]}, X_Trace_Conversation="picture"
        )
        served.post({"model": "tiny", "prompt": [1, 2]}, path="/v1/completions", X_Trace_Conversation="ids")
        served.post({"model": "tiny", "prompt": "said"}, path="/v1/completions", X_Trace_Conversation="prompt")
    found = read_conversations(tmp_path / "conversations.jsonl")
    assert "request 2 of 2 begins otherwise" in str(found["branch"].fault)
    assert str(found["picture"].fault).startswith("it is not recorded whole: messages")
    assert str(found["ids"].fault) == "it is not recorded whole: prompt cannot be recorded"
    assert found["prompt"].fault is None and "secret" not in (tmp_path / "conversations.jsonl").read_text()


def test_the_size_of_a_conversation_is_bounded(stage, tmp_path) -> None:
    history = [user("x" * 1000)]
    with stage(record_bytes=2500) as served:
        for _ in range(5):
            assert served.post({"model": "tiny", "messages": history}, X_Trace_Conversation="long")[0] == 200
            history = [*history, {"role": "assistant", "content": "hé"}, user("y" * 500)]
        assert served.post(asked("short"), X_Trace_Conversation="short")[0] == 200
    found = records(tmp_path)
    assert [record.conversation for record in found].count("long") < 5 and found[-1].conversation == "short"
    assert sum(len(record.model_dump_json()) for record in found if record.conversation == "long") < 3500
    fault = read_conversations(tmp_path / "conversations.jsonl")["long"].fault
    assert fault == "it is not recorded whole: the conversation is larger than the 2500 bytes that are recorded"


def test_errors_are_not_recorded_and_cut_responses_say_so(stage, tmp_path) -> None:
    with stage(record_bytes=RECORDED) as served:
        (upstream,) = served.upstreams
        upstream.status = 400
        assert served.post(asked("refused"), X_Trace_Conversation="refused")[0] == 400
        assert served.post({"model": "nobody", "messages": []})[0] == 404
        upstream.status = 200
        upstream.break_off = "within"
        with pytest.raises(Exception):  # noqa: B017 (whatever the client makes of it)
            served.post(asked("go", stream=True), X_Trace_Conversation="broken")
        upstream.break_off = ""
        upstream.hang = True
        host, port = served.url.removeprefix("http://").split(":")
        body = json.dumps(asked("go", stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Trace-Conversation: left\r\nContent-Length: {len(body)}"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode() + body)
            assert b"200" in connection.recv(100)
            time.sleep(0.5)
        until(lambda: len(records(tmp_path)) == 2)
    broken, left = records(tmp_path)
    assert broken.conversation == "broken" and "broke off" in str(broken.cut)
    assert left.conversation == "left" and "the client left" in str(left.cut)
    assert all(answer.finish_reason is None for record in (broken, left) for answer in record.answers)
    conversation = read_conversations(tmp_path / "conversations.jsonl")["left"]
    assert conversation.fault is None
    assert conversation.trajectory(0.0, "t").termination == "user_stop"
    assert "the client left" in conversation.trajectory(0.0, "t").extra["cut"]


def test_several_answers_are_kept_and_the_next_request_tells_which_was_used(renderer, tokenizer, tmp_path) -> None:
    engine = Scripted(says=renderer.assistant(Message(role="assistant", content="the order")))
    with scripted_gateway(engine, renderer, tokenizer, tmp_path, record_bytes=RECORDED) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            for name in ("ended", "continued"):
                ask = {"model": "tiny", "extra_headers": {"X-Trace-Conversation": name}}
                done = client.chat.completions.create(messages=[user("please")], n=2, **ask)
                assert done.usage.completion_tokens == 2 * len(engine.says)
            history = [user("please"), {"role": "assistant", "content": "the order"}, user("refund")]
            list(client.chat.completions.create(messages=history, stream=True, **ask))
    first, _, last = records(tmp_path)
    assert [answer.message.content for answer in first.answers] == ["the order"] * 2
    assert first.usage.completion_tokens == 2 * len(engine.says)
    assert (last.repeats, len(last.messages), last.usage) == (1, 2, None)
    found = read_conversations(tmp_path / "conversations.jsonl")
    assert found["ended"].fault == "its last request has 2 answers, and which one was used is not known"
    said = [message.content for message in found["continued"].trajectory(1.0, "t").messages]
    assert found["continued"].fault is None and said == ["please", "the order", "refund", "the order"]


def test_a_full_disk_costs_records_and_no_conversation(stage, tmp_path, monkeypatch, caplog) -> None:
    with stage(record_bytes=RECORDED) as served:
        recorder = served.gateway.recorder
        extend, failures = recorder._writer.extend, [OSError("no space left")]

        def failing(found) -> None:
            if failures:
                raise failures.pop()
            extend(found)

        monkeypatch.setattr(recorder._writer, "extend", failing)
        history = [user("question")]
        for _ in range(2):
            assert served.post({"model": "tiny", "messages": history}, X_Trace_Conversation="c")[0] == 200
            until(lambda: recorder._worker.done())
            history = [*history, {"role": "assistant", "content": "hé"}, user("more")]
    assert "1 requests are not recorded: no space left" in caplog.text
    (record,) = records(tmp_path)
    assert record.repeats == 0 and len(record.messages) == 3
