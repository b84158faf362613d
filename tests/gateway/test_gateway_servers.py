"""What a client can do to the servers behind the gateway, and what it hears of them."""

import json
import time
from http.client import IncompleteRead

import pytest
from served import serving
from staging import Stage, asked, until
from upstream import WHOLE


@pytest.mark.parametrize(
    "fields",
    [
        {"input_ids": ["99999"]},
        {"input_ids": [99999.0]},
        {"input_ids": [True]},
        {"input_ids": "7"},
        {"prompt": [99999.0]},
        {"prompt": [["99999"]]},
        {"prompt": ["text", 7]},
        {"prompt": [[7, [320]]]},
        {"stop_token_ids": [1000000], "min_tokens": 1},
        {"stop_token_ids": [-5]},
        {"stop_token_ids": ["5"]},
    ],
)
def test_ids_in_any_form_that_would_kill_a_server_do_not_reach_it(stage, fields):
    with stage() as stage:
        status, _, answer = stage.post(asked("orders", model="base", **fields))
        error = json.loads(answer)["error"]
        assert status == 400 and "outside the vocabulary of 320" in error["message"] and error["param"] in fields
        for well in ({"input_ids": [7, 319]}, {"prompt": ["a", "b"]}, {"stop_token_ids": [5]}, {"input_ids": None}):
            assert stage.post(asked("orders", model="base", **well))[0] == 200
        assert len(stage.upstreams[0].calls) == 4


def test_a_client_cannot_say_that_a_server_has_lost_an_adapter(stage):
    with stage() as stage:
        (server,) = stage.upstreams
        name = next(name for name in server.adapters if name.startswith("refunds-"))
        server.echo = f"temperature is LoRA adapter {name}: no number"
        status, _, answer = stage.post(asked("about refunds"))
        assert status == 400 and name in answer.decode() and len(server.calls) == 1
        assert stage.engine.serving == (server.url,)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_of_one_server_is_asked_of_another_and_the_last_one_s_is_told(stage, status):
    with stage(upstreams=2) as stage:
        stage.upstreams[0].status = status
        for i in range(100):  # a conversation's first server follows from a hash of it and of the servers' ports
            assert stage.post(asked(f"orders {i}"))[2] == WHOLE
            if stage.upstreams[0].calls:
                break
        assert stage.upstreams[0].calls and len(stage.engine.serving) == 2
        stage.upstreams[1].status = status
        found, headers, answer = stage.post(asked("orders"))
        assert (found, headers["retry-after"]) == (status, "7") and json.loads(answer) == {"message": "no"}
        assert headers["X-Trace-Adapter"] == "orders"


def test_a_stream_of_a_server_that_hangs_is_cut(stage):
    with stage() as stage:
        (server,) = stage.upstreams
        server.hang = True
        begun = time.monotonic()
        with pytest.raises(IncompleteRead):
            stage.post(asked("orders", stream=True))
        assert time.monotonic() - begun < 20
        server.hang = False
        until(lambda: stage.metric("requests_in_flight") == 0 and bool(stage.engine.serving))
        assert stage.metric("broken_answers_total") == 1


def test_what_a_client_hears_of_its_prompt(stage, caplog):
    with stage() as stage:
        assert stage.post(asked("orders"))[1]["X-Trace-Prompt"] == "training"
        for _ in range(2):
            assert stage.post(asked("orders", chat_template_kwargs={"x": 1}))[1]["X-Trace-Prompt"] == "server"
        assert stage.metric('prompts_total{writer="server"}') == 2
        assert stage.metric('prompts_total{writer="training"}') == 1
        assert caplog.text.count("servers write prompts by their own template") == 1
        assert stage.upstreams[0].calls[0][1]["accept-encoding"] == "identity"


def test_merges_have_room_on_every_server(held, config, renderer, tmp_path):
    stage = Stage(held, config, renderer, tmp_path, upstreams=2, max_rank=16)
    stage.upstreams[1].max_rank = 6
    with serving(stage.make) as stage.url:
        assert stage.post(asked("refunds and orders and sums"))[1]["X-Trace-Adapter"] == "base"  # ranks 2 + 3 + 4
        assert stage.metric('fallbacks_total{cause="rank"}') == 1
    for upstream in stage.upstreams:
        upstream.stop()


def test_a_connection_that_breaks_does_not_unload_what_others_use(stage):
    with stage() as stage:
        (server,) = stage.upstreams
        server.break_off = "before"
        assert stage.post(asked("orders"))[0] in (502, 503)
        server.break_off = ""
        until(lambda: bool(stage.engine.serving))
        assert stage.post(asked("orders"))[0] == 200 and not server.unloads


def test_what_one_server_refuses_stays_on_none(stage):
    with stage(upstreams=2) as stage:
        stage.upstreams[1].refused_adapters.add("merged@")
        assert stage.post(asked("refunds and orders"))[1]["X-Trace-Adapter"] == "base"
        held = [{name.partition("-")[0] for name in upstream.adapters} for upstream in stage.upstreams]
        assert held == [{"refunds", "orders", "sums"}] * 2
        assert len(stage.engine.serving) == 2
