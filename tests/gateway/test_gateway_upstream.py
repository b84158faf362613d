"""Calls passed on to servers: what arrives there, what comes back, and what happens when one fails."""

import asyncio
import json
import logging
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from served import serving
from staging import CHAT, WAIT_SECONDS, Stage, asked, engine_of, until
from upstream import EVENTS, WHOLE, Upstream

from trace_jax.contract.files import read_records
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.trajectory import Message
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.errors import EngineError, EngineGone, UserError
from trace_jax.gateway.labels import ServerReader
from trace_jax.gateway.limits import Limits
from trace_jax.gateway.sglang import ATTEMPTS
from trace_jax.models.formats.peft import load_peft


def test_bytes_go_through_unchanged_but_for_the_model(stage):
    with stage() as stage:
        (name,) = [name for name in stage.upstreams[0].adapters if name.startswith("refunds-")]
        body = (
            '{"messages" : [ {"role":"user","content":"about refunds \\u00e9 \\ud83d\\ude00 é"} ],\n\t"seed":7, '
            '"model" :\t"gpt-4o" , "n":2,"stop":["a","b"],"logprobs":true,"tool_choice":"auto","tools":[],'
            '"new_field":{"deep":[1.10,{"model":"mine"}],"big":123456789012345678901234567890}, "temperature": 0.70 }'
        ).encode()
        status, headers, answer = stage.post(body)
        (path, _, arrived), *_ = stage.upstreams[0].calls
        assert (status, path, answer) == (200, CHAT, WHOLE)
        ids = ",".join(map(str, stage.renderer.prompt([Message(role="user", content="about refunds é 😀 é")], ())))
        (end,) = stage.renderer.stop_token_ids
        body = body.replace(b"{", f'{{"input_ids":[{ids}],"stop_token_ids":[{end}],'.encode(), 1)
        assert arrived == body.replace(b'"gpt-4o"', f'"tiny:{name}"'.encode())
        assert headers["X-Trace-Adapter"] == "refunds" and headers["X-Trace-Router"] == "classifier"
        assert "X-Secret" not in headers and headers["content-length"] == str(len(WHOLE))
        assert stage.post(asked("refunds", model="base"))[1]["X-Trace-Adapter"] == "base"
        assert json.loads(stage.upstreams[0].calls[-1][2])["model"] == "tiny"


def test_streams_go_through_byte_for_byte_and_the_client_reads_them(stage):
    with stage() as stage:
        assert stage.post(asked("orders", stream=True))[2] == b"".join(EVENTS)
        with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(**asked("orders", stream=True))
            deltas = [chunk.choices[0].delta for chunk in stream]
        assert "".join(delta.content or "" for delta in deltas) == "one two"
        assert deltas[-1].tool_calls[0].function.name == "refund"


def test_events_arrive_as_they_are_sent(stage):
    with stage() as stage:
        stage.upstreams[0].delay = 0.15
        request = urllib.request.Request(stage.url + CHAT, json.dumps(asked("orders", stream=True)).encode())
        with urllib.request.urlopen(request) as answer:
            times = []
            while answer.read1():
                times.append(time.monotonic())
        assert len(times) >= len(EVENTS) - 1 and times[-1] - times[0] > 0.3


def test_no_secret_of_a_client_goes_on(stage):
    secret = f"s3cret-{np.random.default_rng().integers(10**9)}"
    with stage(keys=[secret, "another"]) as stage:
        shown = {
            "Authorization": f"Bearer {secret}", "Cookie": f"session={secret}", "X_Api_Key": secret,
            "Proxy_Authorization": secret, "X_Anything": secret, "traceparent": "00-1-2-01",
        }  # fmt: skip
        assert stage.post(asked("orders"), **shown)[0] == 200
        (_, headers, body), *_ = stage.upstreams[0].calls
        assert secret not in json.dumps(headers) and secret.encode() not in body
        assert headers["traceparent"] == "00-1-2-01" and "authorization" not in headers


def test_keys_are_asked_for_where_calls_are_made(stage):
    with stage(keys=["right", "too"]) as stage:
        for shown in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "right"},
            {"Authorization": "Basic too"},
        ):
            status, _, answer = stage.post(asked("orders"), **shown)
            assert status == 401 and json.loads(answer)["error"]["code"] == "invalid_api_key"
        assert stage.get("/v1/models")[0] == 401
        assert stage.get("/health")[0] == stage.get("/metrics")[0] == 200
        for key in ("right", "too"):
            assert stage.post(asked("orders"), Authorization=f"Bearer {key}")[0] == 200
        assert len(stage.upstreams[0].calls) == 2


def test_a_conversation_keeps_its_first_decision(stage):
    with stage() as stage:
        turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "about refunds"}]
        adapters = []
        for said in ("orders", "sums"):
            adapters.append(stage.post({"model": "tiny", "messages": turns})[1]["X-Trace-Adapter"])
            turns = [*turns, {"role": "assistant", "content": "yes"}, {"role": "user", "content": said}]
        assert adapters == ["refunds", "refunds"]
        named = {"X_Trace_Conversation": "talk 1"}
        adapters = [stage.post(asked(said), **named)[1]["X-Trace-Adapter"] for said in ("sums", "orders", "nothing")]
        assert adapters == ["sums"] * 3
        tools = [{"type": "function", "function": {"name": "orders", "parameters": {}}}]
        stage.post({"model": "tiny", "messages": turns, "tools": tools})  # other tools: another conversation
        assert sum(map(len, stage.router.batches)) == 3
        assert stage.post(asked("orders"), X_Trace_Conversation="x" * 257)[0] == 400


def test_clients_of_two_keys_do_not_share_a_name(stage):
    with stage(keys=["one", "two"]) as stage:
        ask = [("one", "sums"), ("two", "orders"), ("one", "orders")]
        found = [
            stage.post(asked(said), Authorization=f"Bearer {key}", X_Trace_Conversation="1")[1] for key, said in ask
        ]
        assert [sent["X-Trace-Adapter"] for sent in found] == ["sums", "orders", "sums"]
        assert {sent["X-Trace-Conversation"] for sent in found} == {"1"}


def test_first_requests_of_one_conversation_wait_for_one_decision_and_others_are_decided_together(stage):
    with stage() as stage:
        stage.router.before = lambda: time.sleep(0.3)
        with ThreadPoolExecutor(12) as threads:
            said = ["about orders"] * 4 + [f"about refunds {i}" for i in range(8)]
            headers = list(threads.map(lambda words: stage.post(asked(words))[1], said))
        assert [sent["X-Trace-Adapter"] for sent in headers] == ["orders"] * 4 + ["refunds"] * 8
        assert sum(map(len, stage.router.batches)) == 9 and len(stage.router.batches) <= 4


def test_a_router_that_fails_and_a_request_that_cannot_be_read_go_to_the_base_and_are_counted(stage):
    def fail():
        raise RuntimeError("the router is broken: about refunds 123")

    with stage() as stage:
        picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        assert stage.post({"model": "tiny", "messages": picture})[1]["X-Trace-Adapter"] == "base"
        assert stage.post({"model": "tiny", "prompt": [1, 2, 3]}, "/v1/completions")[1]["X-Trace-Adapter"] == "base"
        stage.router.before = fail
        status, headers, _ = stage.post(asked("about refunds"))
        assert (status, headers["X-Trace-Adapter"]) == (200, "base")
        assert stage.metric('fallbacks_total{cause="undecided"}') == 2
        assert stage.metric('fallbacks_total{cause="error"}') == 1
    written = list(read_records(stage.directory / "decisions.jsonl", RouteDecision))
    assert [decision.undecided for decision in written] == [True] * 3


def test_merges_are_made_once_bounded_and_written_for_the_server(stage, config, loras):
    with stage(max_merged=1) as stage:
        server = stage.upstreams[0]
        merges = lambda: {name: path for name, path in server.adapters.items() if name.startswith("merged@")}  # noqa: E731
        assert stage.post(asked("refunds and orders"))[1]["X-Trace-Adapter"] == "1.000000*orders+1.000000*refunds"
        ((first, path),) = merges().items()
        merged = load_peft(path, config)
        assert merged.rank == loras["refunds"].rank + loras["orders"].rank
        for target in merged.targets:
            expected = sum(
                float(lora.scale[0])
                * np.asarray(lora.weights[target]["a"][0], np.float64)
                @ lora.weights[target]["b"][0]
                for lora in (loras["refunds"], loras["orders"])
            )
            found = float(merged.scale[0]) * np.asarray(merged.weights[target]["a"][0]) @ merged.weights[target]["b"][0]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        stage.post(asked("refunds or orders"))  # another conversation, the same merge
        assert json.loads(server.calls[-1][2])["model"] == f"tiny:{first}" and merges().keys() == {first}
        stage.post(asked("refunds and sums"))  # room for one
        assert len(merges()) == 1 and first not in merges() and len(list((stage.directory / "merged").iterdir())) == 1
        stage.post(asked("refunds and orders"))  # a later turn of the first conversation: made again, by the same name
        assert merges().keys() == {first}


def test_merges_that_a_server_cannot_hold_go_to_the_base(stage):
    with stage(max_rank=6) as stage:
        assert stage.post(asked("refunds and orders"))[1]["X-Trace-Adapter"] != "base"  # ranks 2 + 3
        assert stage.post(asked("refunds and orders and sums"))[1]["X-Trace-Adapter"] == "base"  # 9
        assert stage.metric('fallbacks_total{cause="rank"}') == 1
    last = list(read_records(stage.directory / "decisions.jsonl", RouteDecision))[-1]
    assert last.undecided and "merged rank 9 exceeds the server's 6" in last.reason


def test_a_merge_that_a_server_refuses_goes_to_the_base_at_first_and_is_an_error_later(stage, caplog):
    with stage(max_merged=1) as stage:
        (server,) = stage.upstreams
        stage.post(asked("refunds and orders"))
        (name,) = [name for name in server.adapters if name.startswith("merged@")]
        stage.post(asked("refunds and sums"))
        server.refused_adapters.add(name)
        assert stage.post(asked("orders with refunds"))[1]["X-Trace-Adapter"] == "base"
        status, _, answer = stage.post(asked("refunds and orders"))  # decided before: not the base behind its back
        assert status == 502 and "adapter of this conversation" in json.loads(answer)["error"]["message"]
        assert b"too heavy" not in answer and b"127.0.0.1" not in answer and "too heavy" in caplog.text
        assert stage.metric('fallbacks_total{cause="load"}') == 1


def test_a_servers_own_errors_are_passed_on(stage):
    with stage() as stage:
        status, headers, answer = stage.post(asked("orders", temperature=99))
        assert status == 418 and answer == b'{"object":"error","message":"no such heat","code":418}'
        assert headers["X-Trace-Adapter"] == "orders"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "send an object"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ({"messages": []}, 400, "name one of /v1/models"),
        ({"model": "gpt-5", "messages": []}, 404, "no model 'gpt-5'"),
        ({"model": "tiny", "messages": [], "lora_path": "x"}, 400, "name the adapter as the model"),
        ({"model": "base", "prompt": [[1, 2], [320]]}, 400, "token id 320 is outside the vocabulary of 320"),
        ({"model": "base", "messages": [], "input_ids": [-1]}, 400, "token id -1 is outside"),
        ({"model": "tiny", "messages": [{"role": "user", "content": "x" * 3000}]}, 413, "larger than 2000 bytes"),
    ],
)
def test_bad_calls_are_refused_before_a_server_sees_them(stage, body, status, word):
    with stage(limits=Limits(2000 if status == 413 else 1 << 20, 4, 60.0)) as stage:
        found, _, answer = stage.post(body)
        error = json.loads(answer)["error"]
        assert found == status and word in error["message"] and error["type"] == "invalid_request_error"
        assert not stage.upstreams[0].calls


def test_body_without_length_is_bounded_too(stage):
    with stage(limits=Limits(1000, 4, 60.0)) as stage:
        place = urlsplit(stage.url)
        with socket.create_connection((place.hostname, place.port), timeout=10) as client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            client.sendall(head + b"200\r\n" + b"x" * 512 + b"\r\n200\r\n" + b"x" * 512 + b"\r\n")
            assert b" 413 " in client.recv(4096)


def test_too_many_at_a_time_are_told_to_come_back(stage):
    with stage(limits=Limits(1 << 20, 1, 60.0)) as stage:
        stage.upstreams[0].delay = 1.0
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda _: stage.post(asked("orders")), range(3)))
        assert sorted(status for status, *_ in found) == [200, 429, 429]
        refused = next(headers for status, headers, _ in found if status == 429)
        assert refused["retry-after"] == "1"
        stage.upstreams[0].delay = 0.0
        assert stage.post(asked("orders"))[0] == 200


def test_an_answer_that_takes_too_long(stage):
    with stage(limits=Limits(1 << 20, 4, 1.0)) as stage:
        stage.upstreams[0].delay = 60.0
        status, _, answer = stage.post(asked("orders", model="base"))
        assert status == 504 and json.loads(answer)["error"]["type"] == "server_error"
        assert stage.upstreams[0].cancelled.wait(60)


def test_a_client_that_hangs_up_ends_the_work_for_it(stage):
    with stage() as stage:
        (upstream,) = stage.upstreams
        for stream in (False, True):
            upstream.delay, calls = 0.0 if stream else 60.0, len(upstream.calls)
            upstream.cancelled.clear()
            body = json.dumps(asked("orders", stream=stream)).encode()
            place = urlsplit(stage.url)
            with socket.create_connection((place.hostname, place.port), timeout=10) as client:
                if stream:
                    upstream.delay = 1.0
                head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body)
                until(lambda calls=calls: len(upstream.calls) > calls)
                if stream:
                    assert client.recv(100)
            assert upstream.cancelled.wait(60), f"stream={stream}"
        until(lambda: stage.metric('requests_total{route="/v1/chat/completions",status="499"}') == 2)
        assert stage.metric("requests_in_flight") == 0


def test_a_server_that_dies_within_an_answer_leaves_it_unfinished(stage):
    with stage() as stage:
        stage.upstreams[0].break_off = "within"
        with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(Exception, match="(?i)incomplete|closed|connection"):  # by version, of the HTTP library
                list(client.chat.completions.create(**asked("orders", stream=True)))
        assert stage.metric("broken_answers_total") == 1


def test_a_server_that_dies_before_it_answers_is_replaced_by_another(stage):
    with stage(upstreams=2) as stage:
        first, second = stage.upstreams
        for upstream in (first, second):
            upstream.break_off = "before"
            assert stage.post(asked("orders"))[0] == 200
            upstream.break_off = ""
        first.break_off = second.break_off = "before"
        before = len(first.calls) + len(second.calls)
        status, _, answer = stage.post(asked("orders"))
        assert status == 502 and "broke off before they answered" in json.loads(answer)["error"]["message"]
        assert len(first.calls) + len(second.calls) == before + ATTEMPTS


def test_conversations_stay_on_their_server(stage):
    with stage(upstreams=2) as stage:
        for i in range(12):
            for _ in range(2):
                stage.post(asked(f"orders {i}"))
        bodies = [sorted(body for *_, body in upstream.calls) for upstream in stage.upstreams]
        assert all(bodies) and not set(bodies[0]) & set(bodies[1])


def test_a_server_that_goes_and_comes_back_gets_its_adapters_first(stage):
    with stage(upstreams=2) as stage:
        first, second = stage.upstreams
        stage.post(asked("refunds and orders"))
        adapters = dict(first.adapters)
        assert len(adapters) == 4 and adapters == second.adapters
        first.stop()
        until(lambda: len(stage.engine.serving) == 1)
        assert all(stage.post(asked(f"orders {i}"))[0] == 200 for i in range(6))
        second.stop()
        status, headers, answer = stage.post(asked("orders"))
        assert status in (502, 503) and json.loads(answer)["error"]["type"] == "server_error"
        until(lambda: stage.get("/health")[0] == 503)
        status, headers, _ = stage.post(asked("orders"))
        assert status == 503 and headers["retry-after"] == "5"
        first.start()
        until(lambda: stage.get("/health")[0] == 200)
        assert first.adapters == adapters
        assert stage.post(asked("sums"))[0] == 200
        second.start()
        until(lambda: len(stage.engine.serving) == 2)
        assert second.adapters == adapters


def test_a_server_that_was_started_anew_unseen_gets_its_adapters_before_it_answers(stage):
    with stage() as stage:
        (server,) = stage.upstreams
        adapters = dict(server.adapters)
        for stream in (False, True):
            server.adapters.clear()
            status, headers, _ = stage.post(asked("about refunds", stream=stream))
            assert (status, headers["X-Trace-Adapter"]) == (200, "refunds")
            assert server.adapters == adapters


def test_an_adapter_that_a_server_ignores_is_not_served(stage):
    with stage() as stage:
        stage.upstreams[0].deaf = True
        assert stage.post(asked("refunds and orders"))[1]["X-Trace-Adapter"] == "base"
        assert stage.metric('fallbacks_total{cause="load"}') == 1
    last = list(read_records(stage.directory / "decisions.jsonl", RouteDecision))[-1]
    assert "computes as if it had not" in last.reason


def test_a_gateway_does_not_start_before_a_server_that_ignores_adapters(held, config, renderer, tmp_path):
    stage = Stage(held, config, renderer, tmp_path)
    stage.upstreams[0].deaf = True
    with pytest.raises(EngineError, match="computes as if it had not"):
        with serving(stage.make):
            pass
    stage.upstreams[0].stop()


def test_servers_get_their_own_key_and_one_that_asks_for_another_is_an_error(held, config, renderer, tmp_path):
    stage = Stage(held, config, renderer, tmp_path, servers={"api_key": "theirs"}, keys=["ours"])
    stage.upstreams[0].api_key = "theirs"
    with serving(stage.make) as stage.url:
        assert stage.post(asked("about refunds"), Authorization="Bearer ours")[0] == 200
    stage.upstreams[0].api_key = "another"
    with pytest.raises(EngineError, match="/server_info answered 401: Unauthorized: .*set SGLANG_API_KEY to"):
        with serving(stage.make):
            pass
    stage.upstreams[0].stop()


def test_a_server_gets_no_more_at_a_time_than_it_has_seats_and_streams_count(stage):
    with stage(servers={"slots": 2}) as stage:
        (server,) = stage.upstreams
        server.delay = 0.1
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda i: stage.post(asked(f"orders {i}", stream=i % 2 == 0))[0], range(6)))
        assert found == [200] * 6 and server.most == 2


def test_adapters_from_an_earlier_start_of_the_gateway_are_taken_over(held, config, renderer, tmp_path):
    stage = Stage(held, config, renderer, tmp_path)
    for _ in range(2):
        with serving(stage.make) as stage.url:
            assert stage.post(asked("orders"))[0] == 200
    stage.upstreams[0].stop()


def test_no_server_at_all_is_an_error_at_the_start(config):
    async def start():
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        await SGLangEngine(
            [f"http://127.0.0.1:{port}"], config, (), EngineSettings(wait_seconds=WAIT_SECONDS)
        ).server_info()

    with pytest.raises(EngineGone, match="no server to generate with .*: start the servers again"):
        asyncio.run(start())


def test_messages_are_logged_only_when_asked(stage, caplog):
    word = f"w{np.random.default_rng().integers(10**9)}"
    lone = b'{"model":"tiny","messages":[{"role":"user","content":"' + word.encode() + b' \\ud800"}]}'
    with caplog.at_level(logging.DEBUG, "trace_jax"):
        with stage() as quiet:
            quiet.post(asked(f"orders {word}"))
            quiet.post(lone)
            quiet.post({"model": word, "messages": []})
            quiet.router.before = lambda: {}[word]  # an error that quotes what was said
            quiet.post(asked(f"sums {word}"))
            quiet.upstreams[0].break_off = "before"
            quiet.post(asked(f"orders {word}"))
            assert word not in quiet.get("/metrics")[1].decode()
        assert caplog.records and word not in caplog.text
        with stage(log_messages=True) as asked_for:
            asked_for.post(asked(f"orders {word}"))
        assert word in caplog.text


def test_labels_are_read_from_a_server(held, config):
    upstream = Upstream()

    async def read():
        reader = ServerReader(engine_of([upstream], config), 8, asyncio.get_running_loop())
        for length in (0, 8):
            with pytest.raises(UserError, match=f"prompt of {length} tokens; servers read 1 to 7"):
                reader.check_length([1] * length)
        reader.check_length([1] * 7)
        return await asyncio.to_thread(reader.next_logprobs, [(1, 2), (3,)], (7, 5))

    np.testing.assert_array_equal(asyncio.run(read()), [[-7.0, -5.0]] * 2)
    (body,) = upstream.generates
    assert body["input_ids"] == [[1, 2], [3]] and body["token_ids_logprob"] == [[7, 5]] * 2
    upstream.stop()
