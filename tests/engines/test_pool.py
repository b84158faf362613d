"""The pool on servers that a test controls."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from trace_jax.engines.sglang import pool
from trace_jax.engines.sglang.pool import Pool
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerTimeout
from trace_jax.environments.episode_clock import episode_clock
from trace_jax.errors import EngineError, EngineGone


class Server:
    """Ready while ``fault`` is None."""

    def __init__(self, url: str, fault: Exception | None = None) -> None:
        self.url, self.fault = url, fault
        self.checks = self.updates = self.invalidations = self.requests = 0

    async def ready(self) -> None:
        self.checks += 1
        if self.fault:
            raise self.fault

    async def update(self) -> None:
        self.updates += 1
        await self.ready()

    def invalidate(self) -> None:
        self.invalidations += 1


def pool_of(*servers: Server, **settings: float) -> Pool[Server]:
    return Pool(servers, **({"slots": 2, "attempts": 6, "wait_seconds": 5.0} | settings))  # type: ignore[arg-type]


async def ask(servers: Pool[Server], answer: Callable[[Server], object] = lambda server: None, affinity: str = ""):
    async def request(server: Server) -> str:
        server.requests += 1
        if isinstance(found := answer(server), Exception):
            raise found
        if isinstance(found, float):
            await asyncio.sleep(found)
        return server.url

    async with servers.response(request, affinity) as url:
        return url


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_FIRST_RETRY", 0.05)
    monkeypatch.setattr(pool, "_LONGEST_RETRY", 0.2)


def test_a_server_that_was_away_for_days_is_taken_back() -> None:
    async def run() -> None:
        well, away = Server("well"), Server("away", ServerFailed("refused"))
        servers = pool_of(well, away)
        await servers.update()
        servers._servers[1].failed_checks = 5000
        servers._servers[1].next_check = 0.0
        await servers.update()
        away.fault = None
        await until(lambda: len(servers.serving) == 2)

    asyncio.run(run())


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), TypeError("a bug")])
def test_what_no_server_is_to_blame_for_is_tried_again_too(fault: Exception, caplog) -> None:
    async def run() -> None:
        well, other = Server("well"), Server("other", fault)
        servers = pool_of(well, other)
        assert await ask(servers) == "well"
        await until(lambda: other.updates > 2)
        other.fault = None
        await until(lambda: len(servers.serving) == 2)
        other.fault = fault
        with pytest.raises(EngineError, match="other cannot be brought up to date: "):
            await servers.update()

    asyncio.run(run())
    assert ("Traceback" in caplog.text) == isinstance(fault, TypeError)
    assert str(fault) in caplog.text


def test_every_reason_for_being_out_is_told_once(caplog) -> None:
    async def run() -> None:
        well, other = Server("well"), Server("other")
        servers = pool_of(well, other)
        await servers.update()
        for words in ("connection refused", "serves no adapters"):
            other.fault, checks = EngineError(words), other.checks
            await until(lambda checks=checks: other.checks > checks + 4)

    asyncio.run(run())
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["other is out: connection refused", "other is out: serves no adapters"]


def test_while_all_are_busy_requests_wait_off_the_clock_and_are_not_sent_in_a_storm() -> None:
    async def run() -> int:
        busy = Server("busy")
        servers, end = pool_of(busy), time.monotonic() + 3.0
        async with episode_clock(1.0):
            assert await ask(servers, lambda _: ServerBusy("503") if time.monotonic() < end else None) == "busy"
        assert time.monotonic() >= end and servers.serving == [busy] and not busy.invalidations
        return busy.requests

    assert 2 <= asyncio.run(run()) <= 40


def test_busy_for_too_long_is_a_failure() -> None:
    async def run() -> None:
        with pytest.raises(ServerBusy, match="503"):
            await ask(pool_of(Server("busy"), wait_seconds=1.0), lambda _: ServerBusy("503"))

    begun = time.monotonic()
    asyncio.run(run())
    assert 1.0 <= time.monotonic() - begun < 10.0


def test_a_slow_request_is_tried_twice_and_takes_no_server_out() -> None:
    async def run() -> None:
        first, other = Server("first"), Server("other")
        servers = pool_of(first, other)
        for _ in range(4):
            with pytest.raises(ServerTimeout):
                await ask(servers, lambda _: ServerTimeout("300 s"))
            urls = await asyncio.gather(*(ask(servers, lambda _: 0.05) for _ in range(4)))  # each answers others
            assert set(urls) == {"first", "other"}
        assert first.requests + other.requests == 4 * (2 + 4) and not first.invalidations + other.invalidations

    asyncio.run(run())


def test_a_server_that_answers_nothing_in_time_goes_out_until_it_is_updated() -> None:
    async def run() -> None:
        hung, well = Server("hung"), Server("well")
        servers = pool_of(hung, well)
        await servers.update()
        updates = hung.updates
        while not hung.invalidations:
            assert await ask(servers, lambda server: ServerTimeout("300 s") if server is hung else None) == "well"
        assert hung.requests == pool._TIMEOUTS
        await until(lambda: hung.updates > updates and len(servers.serving) == 2)

    asyncio.run(run())


def test_a_freed_slot_is_taken_at_once() -> None:
    async def run() -> None:
        servers = pool_of(Server("first"), slots=1)
        await servers.update()
        async with asyncio.timeout(5.0):
            await asyncio.gather(*(ask(servers, lambda _: 0.01) for _ in range(40)))

    asyncio.run(run())


def test_waiting_for_a_slot_is_off_the_clock() -> None:
    async def run() -> None:
        servers = pool_of(Server("first"), slots=1)

        async def episode() -> None:
            async with episode_clock(1.0):
                await ask(servers, lambda _: 0.4)

        await asyncio.gather(*(episode() for _ in range(5)))

    asyncio.run(run())


def test_a_popular_prefix_moves_on_before_its_server_is_full() -> None:
    async def run() -> None:
        servers = pool_of(Server("first"), Server("other"), slots=16)
        await servers.update()
        urls = await asyncio.gather(*(ask(servers, lambda _: 0.3, affinity="hot") for _ in range(16)))
        counts = sorted(urls.count(url) for url in set(urls))
        assert len(counts) == 2 and counts[1] < 12, counts

    asyncio.run(run())


def test_without_affinity_the_least_loaded_is_asked() -> None:
    async def run() -> None:
        servers = pool_of(Server("first"), Server("other"), slots=16)
        await servers.update()
        urls = await asyncio.gather(*(ask(servers, lambda _: 0.3) for _ in range(8)))
        assert urls.count("first") == urls.count("other") == 4

    asyncio.run(run())


def test_the_last_server_is_waited_for_from_when_it_went() -> None:
    async def run() -> None:
        first = Server("first")
        servers = pool_of(first, wait_seconds=1.0)
        await servers.update()
        await asyncio.sleep(1.2)
        first.fault, begun = ServerFailed("gone"), time.monotonic()
        await until(lambda: not servers.serving)
        with pytest.raises(EngineGone):
            await ask(servers)
        assert time.monotonic() - begun >= 1.0

    asyncio.run(run())


def test_the_time_in_which_the_loop_stood_still_is_nobody_s_wait() -> None:
    first = Server("first")
    servers = pool_of(first, wait_seconds=1.0)

    async def goes() -> None:
        await servers.update()
        first.fault = ServerFailed("gone")
        await until(lambda: not servers.serving)

    with asyncio.Runner() as runner:
        runner.run(goes())
        first.fault = None
        time.sleep(1.5)  # the caller does other work
        assert runner.run(ask(servers)) == "first"


def test_what_was_seen_before_a_failure_counts_for_nothing() -> None:
    """A check was under way when a request failed. It may have seen the process that is gone."""

    class Held(Server):
        answers, looking = asyncio.Event(), False

        async def ready(self) -> None:
            self.looking = True
            await self.answers.wait()
            self.looking = False
            await super().ready()

    async def run() -> None:
        held = Held("held")
        held.answers.set()
        servers = pool_of(held, attempts=1)
        await servers.update()
        held.answers.clear()
        await until(lambda: held.looking)
        with pytest.raises(ServerFailed):
            await ask(servers, lambda _: ServerFailed("gone"))
        updates, invalidations = held.updates, held.invalidations
        held.answers.set()
        await until(lambda: bool(servers.serving))
        assert held.updates == updates + 1 and held.invalidations == invalidations + 1

    asyncio.run(run())


def test_nobody_is_overtaken() -> None:
    async def run() -> None:
        servers, order = pool_of(Server("first"), slots=1), []

        async def request(number: int) -> None:
            await ask(servers, lambda _: order.append(number) or 0.1)

        await servers.update()
        tasks = []
        for number in range(15):  # more than a second of waiting for the last
            tasks.append(asyncio.create_task(request(number)))
            await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0.25)
        tasks.append(asyncio.create_task(request(99)))  # comes when a slot is about to be free
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [number for number in range(15) if number != 3] + [99]

    asyncio.run(run())


def test_a_slot_that_was_given_to_a_request_that_leaves_is_given_to_the_next() -> None:
    async def run() -> None:
        servers = pool_of(Server("first"), slots=1)
        await servers.update()
        first, second = (asyncio.create_task(ask(servers, lambda _: 0.05)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.add_done_callback(lambda _: second.cancel())  # it holds the slot, and has not run
        third = asyncio.create_task(ask(servers))
        async with asyncio.timeout(5.0):
            assert await third == "first"
        await asyncio.gather(first, second, return_exceptions=True)
        assert servers._servers[0].in_flight == 0

    asyncio.run(run())


def test_a_response_that_is_read_ends_when_its_server_is_given_up() -> None:
    async def run() -> None:
        hung, well = Server("hung"), Server("well")
        servers = pool_of(hung, well)
        await servers.update()

        async def request(server: Server) -> Server:
            return server

        async def stream() -> str:
            async with servers.response(request) as server:
                if server is well:
                    return "well"
                hung.fault = ServerFailed("no answer")
                await asyncio.sleep(60)
            return "never"

        found = await asyncio.gather(stream(), stream(), return_exceptions=True)
        (cut,) = (result for result in found if isinstance(result, TimeoutError))
        assert "well" in found and str(cut) == "hung went away: no answer"
        assert not servers._servers[0].streams and servers._servers[0].in_flight == 0
        with pytest.raises(TimeoutError, match="^mine$"):  # a caller's own is its own
            async with servers.response(request):
                raise TimeoutError("mine")

    asyncio.run(asyncio.wait_for(run(), 20))
