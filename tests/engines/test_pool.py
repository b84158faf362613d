"""The pool on members that a test leads by the hand."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from trace_jax.engines.deadline import episode_clock
from trace_jax.engines.sglang import pool
from trace_jax.engines.sglang.pool import Pool
from trace_jax.engines.sglang.server import ServerBusy, ServerFailed, ServerSlow
from trace_jax.errors import EngineError, EngineGone


class Member:
    """Ready while ``fault`` is None."""

    def __init__(self, url: str, fault: Exception | None = None) -> None:
        self.url, self.fault = url, fault
        self.looks = self.updates = self.doubts = self.asked = 0

    async def ready(self) -> None:
        self.looks += 1
        if self.fault:
            raise self.fault

    async def update(self) -> None:
        self.updates += 1
        await self.ready()

    def doubt(self) -> None:
        self.doubts += 1


def pool_of(*members: Member, **settings: float) -> Pool[Member]:
    return Pool(members, **({"seats": 2, "attempts": 6, "wait_seconds": 5.0} | settings))  # type: ignore[arg-type]


async def ask(members: Pool[Member], answer: Callable[[Member], object] = lambda member: None, affinity: str = ""):
    async def request(member: Member) -> str:
        member.asked += 1
        if isinstance(found := answer(member), Exception):
            raise found
        if isinstance(found, float):
            await asyncio.sleep(found)
        return member.url

    async with members.asking(request, affinity) as url:
        return url


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_READY_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_FIRST_RETRY", 0.05)
    monkeypatch.setattr(pool, "_LONGEST_RETRY", 0.2)


def test_a_server_that_was_away_for_days_is_taken_back() -> None:
    async def run() -> None:
        well, away = Member("well"), Member("away", ServerFailed("refused"))
        members = pool_of(well, away)
        await members.update()
        members._places[1].missed = 5000  # looks
        members._places[1].next_look = 0.0
        await members.update()
        away.fault = None
        await until(lambda: len(members.serving) == 2)

    asyncio.run(run())


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), TypeError("a bug")])
def test_what_no_server_is_to_blame_for_is_tried_again_too(fault: Exception, caplog) -> None:
    async def run() -> None:
        well, other = Member("well"), Member("other", fault)
        members = pool_of(well, other)
        assert await ask(members) == "well"
        await until(lambda: other.updates > 2)
        other.fault = None
        await until(lambda: len(members.serving) == 2)
        other.fault = fault
        with pytest.raises(EngineError, match="other cannot be brought up to date: "):
            await members.update()

    asyncio.run(run())
    assert ("Traceback" in caplog.text) == isinstance(fault, TypeError)
    assert str(fault) in caplog.text


def test_every_reason_for_being_out_is_told_once(caplog) -> None:
    async def run() -> None:
        well, other = Member("well"), Member("other")
        members = pool_of(well, other)
        await members.update()
        for words in ("connection refused", "serves no adapters"):
            other.fault, looks = EngineError(words), other.looks
            await until(lambda looks=looks: other.looks > looks + 4)

    asyncio.run(run())
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["other is out: connection refused", "other is out: serves no adapters"]


def test_while_all_are_busy_requests_wait_off_the_clock_and_are_not_sent_in_a_storm() -> None:
    async def run() -> int:
        busy = Member("busy")
        members, end = pool_of(busy), time.monotonic() + 3.0
        async with episode_clock(1.0):
            assert await ask(members, lambda _: ServerBusy("503") if time.monotonic() < end else None) == "busy"
        assert time.monotonic() >= end and members.serving == [busy] and not busy.doubts
        return busy.asked

    assert 2 <= asyncio.run(run()) <= 40


def test_busy_for_too_long_is_a_failure() -> None:
    async def run() -> None:
        with pytest.raises(ServerBusy, match="503"):
            await ask(pool_of(Member("busy"), wait_seconds=1.0), lambda _: ServerBusy("503"))

    begun = time.monotonic()
    asyncio.run(run())
    assert 1.0 <= time.monotonic() - begun < 10.0


def test_a_slow_request_is_tried_twice_and_takes_no_server_out() -> None:
    async def run() -> None:
        one, other = Member("one"), Member("other")
        members = pool_of(one, other)
        for _ in range(4):
            with pytest.raises(ServerSlow):
                await ask(members, lambda _: ServerSlow("300 s"))
            urls = await asyncio.gather(*(ask(members, lambda _: 0.05) for _ in range(4)))  # each answers others
            assert set(urls) == {"one", "other"}
        assert one.asked + other.asked == 4 * (2 + 4) and not one.doubts + other.doubts

    asyncio.run(run())


def test_a_server_that_answers_nothing_in_time_goes_out_until_it_is_updated() -> None:
    async def run() -> None:
        hung, well = Member("hung"), Member("well")
        members = pool_of(hung, well)
        await members.update()
        updates = hung.updates
        while not hung.doubts:
            assert await ask(members, lambda member: ServerSlow("300 s") if member is hung else None) == "well"
        assert hung.asked == pool._SLOW
        await until(lambda: hung.updates > updates and len(members.serving) == 2)

    asyncio.run(run())


def test_a_freed_seat_is_taken_at_once() -> None:
    async def run() -> None:
        members = pool_of(Member("one"), seats=1)
        await members.update()
        async with asyncio.timeout(5.0):
            await asyncio.gather(*(ask(members, lambda _: 0.01) for _ in range(40)))

    asyncio.run(run())


def test_waiting_for_a_seat_is_off_the_clock() -> None:
    async def run() -> None:
        members = pool_of(Member("one"), seats=1)

        async def episode() -> None:
            async with episode_clock(1.0):
                await ask(members, lambda _: 0.4)

        await asyncio.gather(*(episode() for _ in range(5)))

    asyncio.run(run())


def test_a_popular_prefix_moves_on_before_its_server_is_full() -> None:
    async def run() -> None:
        members = pool_of(Member("one"), Member("other"), seats=16)
        await members.update()
        urls = await asyncio.gather(*(ask(members, lambda _: 0.3, affinity="hot") for _ in range(16)))
        counts = sorted(urls.count(url) for url in set(urls))
        assert len(counts) == 2 and counts[1] < 12, counts

    asyncio.run(run())


def test_without_affinity_the_least_loaded_is_asked() -> None:
    async def run() -> None:
        members = pool_of(Member("one"), Member("other"), seats=16)
        await members.update()
        urls = await asyncio.gather(*(ask(members, lambda _: 0.3) for _ in range(8)))
        assert urls.count("one") == urls.count("other") == 4

    asyncio.run(run())


def test_the_last_server_is_waited_for_from_when_it_went() -> None:
    async def run() -> None:
        one = Member("one")
        members = pool_of(one, wait_seconds=1.0)
        await members.update()
        await asyncio.sleep(1.2)
        one.fault, begun = ServerFailed("gone"), time.monotonic()
        await until(lambda: not members.serving)
        with pytest.raises(EngineGone):
            await ask(members)
        assert time.monotonic() - begun >= 1.0

    asyncio.run(run())


def test_the_time_in_which_the_loop_stood_still_is_nobody_s_wait() -> None:
    one = Member("one")
    members = pool_of(one, wait_seconds=1.0)

    async def goes() -> None:
        await members.update()
        one.fault = ServerFailed("gone")
        await until(lambda: not members.serving)

    with asyncio.Runner() as runner:
        runner.run(goes())
        one.fault = None
        time.sleep(1.5)  # the caller does other work
        assert runner.run(ask(members)) == "one"


def test_what_was_seen_before_a_failure_counts_for_nothing() -> None:
    """A look that was under way when a request failed: it may have seen the process that has gone."""

    class Held(Member):
        answers, looking = asyncio.Event(), False

        async def ready(self) -> None:
            self.looking = True
            await self.answers.wait()
            self.looking = False
            await super().ready()

    async def run() -> None:
        held = Held("held")
        held.answers.set()
        members = pool_of(held, attempts=1)
        await members.update()
        held.answers.clear()
        await until(lambda: held.looking)
        with pytest.raises(ServerFailed):
            await ask(members, lambda _: ServerFailed("gone"))
        updates, doubts = held.updates, held.doubts
        held.answers.set()
        await until(lambda: bool(members.serving))
        assert held.updates == updates + 1 and held.doubts == doubts + 1

    asyncio.run(run())


def test_nobody_is_overtaken() -> None:
    async def run() -> None:
        members, order = pool_of(Member("one"), seats=1), []

        async def one(number: int) -> None:
            await ask(members, lambda _: order.append(number) or 0.1)

        await members.update()
        tasks = []
        for number in range(15):  # more than a second of waiting for the last
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0.25)
        tasks.append(asyncio.create_task(one(99)))  # comes when a seat is about to be free
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [number for number in range(15) if number != 3] + [99]

    asyncio.run(run())


def test_a_seat_that_was_given_to_one_who_leaves_is_given_to_the_next() -> None:
    async def run() -> None:
        members = pool_of(Member("one"), seats=1)
        await members.update()
        first, second = (asyncio.create_task(ask(members, lambda _: 0.05)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.add_done_callback(lambda _: second.cancel())  # it holds the seat, and has not run
        third = asyncio.create_task(ask(members))
        async with asyncio.timeout(5.0):
            assert await third == "one"
        await asyncio.gather(first, second, return_exceptions=True)
        assert members._places[0].in_flight == 0

    asyncio.run(run())


def test_what_goes_on_at_a_server_that_is_given_up_is_cut() -> None:
    async def run() -> None:
        hung, well = Member("hung"), Member("well")
        members = pool_of(hung, well)
        await members.update()

        async def request(member: Member) -> Member:
            return member

        async def stream() -> str:
            async with members.asking(request) as member:
                if member is well:
                    return "well"
                hung.fault = ServerFailed("no answer")
                await asyncio.sleep(60)
            return "never"

        found = await asyncio.gather(stream(), stream(), return_exceptions=True)
        (cut,) = (one for one in found if isinstance(one, TimeoutError))
        assert "well" in found and str(cut) == "hung went away: no answer"
        assert not members._places[0].holders and members._places[0].in_flight == 0
        with pytest.raises(TimeoutError, match="^mine$"):  # a caller's own is its own
            async with members.asking(request):
                raise TimeoutError("mine")

    asyncio.run(asyncio.wait_for(run(), 20))
