"""What a real server cannot be made to show: 500s, hangs, nonsense, log-probabilities that are no numbers."""

import asyncio
import json
import logging
import re

import pytest
from aiohttp import web

from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang import pool
from trace_jax.engines.sglang.engine import ATTEMPTS, SGLangEngine
from trace_jax.engines.sglang.server import Refused, ServerFailed
from trace_jax.errors import EngineError, EngineGone
from trace_jax.models.config import DecoderConfig


def good(tokens=(11, 12), logprobs=(-0.5, -1.5), **reason) -> dict:
    sampled = [[value, token, None] for value, token in zip(logprobs, tokens, strict=True)]
    return {"meta_info": {"finish_reason": {"type": "length", **reason}, "output_token_logprobs": sampled}}


class Fake:
    """A server whose ``/generate`` answers as told, one answer after the other; the last one for ever."""

    def __init__(self, *answers: object, port: int = 0) -> None:
        self.answers, self.asked, self.ready, self._port = list(answers), [], True, port
        self.in_flight = self.most = 0
        self.context, self.base = 512, -4.0

    async def __aenter__(self) -> "Fake":
        app = web.Application()
        app.router.add_post("/generate", self._generate)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/server_info", self._settings)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    async def _settings(self, _: web.Request) -> web.Response:
        return web.json_response({"enable_lora": True})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "root": "m", "parent": None, "max_model_len": self.context}]})

    async def _generate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if "logprob_start_len" in asked:  # the probe of the base
            tokens = [[self.base, token, None] for token in asked["input_ids"][0]]
            return web.json_response([{"meta_info": {"input_token_logprobs": tokens}}])
        self.asked.append(asked)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await self._answer()
        finally:
            self.in_flight -= 1

    async def _answer(self) -> web.Response:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = good()
        if isinstance(answer, int):
            return web.json_response({"error": {"message": f"because {answer}"}}, status=answer)
        return web.Response(body=answer) if isinstance(answer, bytes) else web.json_response(answer)


STOP = (3, 5)


def engine_of(*fakes: Fake, **changes: float) -> SGLangEngine:
    defaults = {"slots": 2, "capacity": 64, "request_seconds": 5.0, "wait_seconds": 5.0}
    settings = EngineSettings(**(defaults | changes))  # type: ignore[arg-type]
    return SGLangEngine([fake.url for fake in fakes], DecoderConfig(64, 8, 1, 1, 1, 8, 8), STOP, settings)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pool, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_FIRST_RETRY", 0.1)


def ask(*answers: object, **settings: float) -> tuple[Completion, list[dict]]:
    async def run() -> tuple[Completion, list[dict]]:
        async with Fake(*answers) as fake:
            completion = await engine_of(fake, **settings).generate((7, 8), Sampling(2, 0.7, 5))
            return completion, fake.asked

    return asyncio.run(run())


def test_what_is_asked() -> None:
    completion, (asked,) = ask(good())
    assert completion == Completion((11, 12), (-0.5, -1.5), "length")
    parameters = asked.pop("sampling_params")
    assert asked == {"input_ids": [7, 8], "return_logprob": True, "lora_path": None}
    assert parameters.items() >= {"max_new_tokens": 2, "temperature": 0.7, "sampling_seed": 5}.items()
    assert parameters["stop_token_ids"] == [*STOP] and (parameters["top_p"], parameters["top_k"]) == (1.0, -1)


@pytest.mark.parametrize("token", STOP)
def test_every_stop_token_of_the_base_ends_a_turn(token: int) -> None:
    completion, _ = ask(good((11, token), type="stop"))
    assert completion == Completion((11, token), (-0.5, -1.5), "stop")


def test_a_server_whose_model_has_other_end_tokens_is_named() -> None:
    """Its end token would be text to the renderer, and so part of the agent's message."""
    with pytest.raises(EngineError, match="ended a completion at token 12, which ends no turn of the base here"):
        ask(good(type="stop"))


@pytest.mark.parametrize(
    "fault",
    [500, 502, 503, 429, 9.0, b"<html>", b"[]", {"text": "no ids"}, {"meta_info": {}}, good(type="abort")]
    + [good(type="odd"), good((1, 2, 3), (-1.0, -1.0, -1.0)), good(logprobs=(-(10**400), -1.0))],
)  # fmt: skip
def test_a_server_s_fault_is_asked_again(fault: object) -> None:
    completion, asked = ask(fault, good(), request_seconds=0.5)
    assert completion.token_ids == (11, 12) and len(asked) == 2 and asked[0] == asked[1]


@pytest.mark.parametrize("token", [-1, 64])
def test_a_token_that_would_kill_a_server_is_not_sent(token: int) -> None:
    async def run() -> None:
        async with Fake(good()) as fake:
            with pytest.raises(EngineError, match=f"token id {token} is outside the vocabulary of 64"):
                await engine_of(fake).generate((7, token), Sampling(2))
            assert not fake.asked

    asyncio.run(run())


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_caller_s_fault_is_not(status: int) -> None:
    async def run() -> int:
        async with Fake(status) as fake:
            engine = engine_of(fake)
            with pytest.raises(Refused, match=f"/generate answered {status}: because {status}"):
                await engine.generate((7,), Sampling(2))
            assert engine.serving == (fake.url,)  # it did nothing wrong
            return len(fake.asked)

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize(
    "answer, words",
    [
        (good(logprobs=(None, -1.0)), "log-probabilities that are not finite"),
        (good(logprobs=(float("-inf"), -1.0)), "log-probabilities that are not finite"),
        (json.dumps(good(logprobs=(float("nan"), -1.0))).encode(), "log-probabilities that are not finite"),
        (good(type="stop", matched="NaN happened"), "log-probabilities that are not finite"),
        (good((1,), (-1.0,)), "ended after 1 of 2 tokens: start it with a larger"),
    ],
)
def test_answers_that_no_other_server_would_mend(answer: object, words: str) -> None:
    with pytest.raises(EngineError, match=words) as error:
        ask(answer)
    assert not isinstance(error.value, ServerFailed)


def test_a_request_that_kills_whatever_it_meets_is_given_up() -> None:
    async def run() -> None:
        async with Fake(500) as first, Fake(500) as other:
            engine = engine_of(first, other)
            with pytest.raises(ServerFailed, match="/generate answered 500: because 500"):
                await engine.generate((7,), Sampling(2))
            assert len(first.asked) + len(other.asked) == ATTEMPTS

    asyncio.run(run())


def test_a_request_is_asked_elsewhere_before_it_is_asked_again() -> None:
    async def run() -> None:
        async with Fake(503) as busy, Fake(good()) as well:
            engine = engine_of(busy, well, slots=8)
            assert await engine.health()
            await asyncio.gather(*(engine.generate((7,), Sampling(2), affinity=str(i)) for i in range(12)))
            assert 0 < len(busy.asked) <= 12  # once a request

    asyncio.run(run())


def test_a_busy_server_stays_and_a_broken_one_does_not(caplog) -> None:
    async def run(fault: int) -> tuple[str, ...]:
        async with Fake(fault, good()) as fake:
            engine = engine_of(fake)
            await engine.generate((7,), Sampling(2))
            return engine.serving

    caplog.set_level(logging.WARNING)
    asyncio.run(run(503))
    assert "is out" not in caplog.text
    asyncio.run(run(500))
    assert "is out: " in caplog.text and "answered 500" in caplog.text


def test_a_server_that_comes_back_with_other_settings_is_asked_for_them_again() -> None:
    async def run() -> None:
        async with Fake(good(), 500, good()) as fake:
            engine = engine_of(fake)
            await engine.generate((7,), Sampling(2))
            fake.context = 32
            with pytest.raises(EngineGone, match="takes 32 tokens a request, engine.capacity is 64"):
                await engine.generate((7,), Sampling(2))

    asyncio.run(run())


def test_a_server_of_another_base_gets_no_requests_until_it_is_mended(caplog) -> None:
    async def run() -> None:
        async with Fake(good()) as first, Fake(good()) as other:
            other.base = -4.2
            engine = engine_of(first, other, slots=1)
            await engine.generate((7,), Sampling(2))
            while "is out" not in caplog.text:
                await asyncio.sleep(0.01)
            (serving,) = engine.serving
            if serving == first.url:
                other.base = first.base + 0.02  # rounding
            else:
                first.base = other.base + 0.02
            while len(engine.serving) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert re.search(r"serves another base than http://127\S+ \(mean \|Δ log-probability\| 0\.2\)", caplog.text)


def test_requests_of_a_server_that_hangs_go_elsewhere() -> None:
    async def run() -> None:
        async with Fake(60.0) as hung, Fake(good()) as well:
            engine = engine_of(hung, well, slots=1, request_seconds=60.0)
            tasks = [asyncio.create_task(engine.generate((7,), Sampling(2), affinity=str(i))) for i in range(8)]
            while not hung.asked:
                await asyncio.sleep(0.01)
            hung.ready = False
            completions = await asyncio.wait_for(asyncio.gather(*tasks), 20)
            assert [completion.token_ids for completion in completions] == [(11, 12)] * 8
            assert engine.serving == (well.url,)

    asyncio.run(run())


def test_a_caller_that_leaves_gives_its_seat_back() -> None:
    async def run() -> None:
        async with Fake(60.0, good()) as fake:
            engine = engine_of(fake, slots=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await engine.generate((7,), Sampling(2))
            assert (await engine.generate((7,), Sampling(2))).token_ids == (11, 12)
            assert engine.serving == (fake.url,)

    asyncio.run(run())


def test_seats_are_all_taken_and_never_exceeded() -> None:
    async def run() -> None:
        async with Fake(0.05) as first, Fake(0.05) as other:
            engine = engine_of(first, other, slots=4)

            async def generate(number: int) -> None:
                await engine.generate((7, number), Sampling(2), affinity=f"group {number}")

            await generate(0)
            await asyncio.gather(*(generate(number) for number in [*range(8)] * 6))
            assert first.most == other.most == 4
            assert len(first.asked) + len(other.asked) == 49 and min(len(first.asked), len(other.asked)) >= 16

    asyncio.run(run())


def test_an_idle_pool_sends_a_group_to_one_server() -> None:
    async def run() -> None:
        async with Fake(good()) as first, Fake(good()) as other, Fake(good()) as third:
            engine, fakes = engine_of(first, other, third, slots=8), (first, other, third)
            assert await engine.health()
            for group in range(30):
                for _ in range(3):
                    await engine.generate((7, group), Sampling(2), affinity=f"group {group}")
            held = [{asked["input_ids"][1] for asked in fake.asked} for fake in fakes]
            assert sorted(number for groups in held for number in groups) == list(range(30))
            assert all(len(groups) >= 3 for groups in held), held

    asyncio.run(run())


def test_nobody_there(caplog) -> None:
    async def run() -> None:
        async with Fake(good()) as fake:
            engine = engine_of(fake, wait_seconds=0.5)
        with pytest.raises(EngineGone, match="no server to generate with for [01] s .*: start the servers again"):
            await engine.generate((7,), Sampling(2))

    asyncio.run(run())
    assert "waiting for a server, for" in caplog.text


def test_one_event_loop_after_the_other_leaves_nothing_open(recwarn) -> None:
    fake = Fake(good())

    async def run(engine: SGLangEngine | None) -> SGLangEngine:
        async with fake:
            engine = engine or engine_of(fake)
            await engine.generate((7,), Sampling(2))
            return engine

    asyncio.run(run(asyncio.run(run(None))))
    assert len(fake.asked) == 2
    assert not [str(warning.message) for warning in recwarn if "session" in str(warning.message).lower()]
