"""Worker processes: what they say arrives, and however they end, only their own episodes break, each with a reason."""

import asyncio
import os
import signal
import time
from contextlib import contextmanager

import pytest
from odd_target import Odd

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.episode_clock import episode_clock
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.child import WorkerPlan
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.hosts.pool import Pool, PoolHost


@contextmanager
def a_pool(workers=1, target="Desk", step_seconds=30.0, start_seconds=60.0, **parameters):
    plan = WorkerPlan(f"odd_target:{target}", parameters, None, step_seconds, start_seconds)
    pool = Pool(plan, workers)
    try:
        yield pool
    finally:
        pool.close()


def said(text):
    return Message(role="assistant", content=text)


async def opened(pool, number, task=1):
    episodes = await asyncio.gather(*[PoolHost(pool, "train").open() for _ in range(number)])
    for episode in episodes:
        await episode.reset(task)
    return episodes


async def text(episode, words):
    return (await episode.step(said(words))).messages[0].content


async def fault(episode, words):
    with pytest.raises(EnvironmentFault) as caught:
        await episode.step(said(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_both_kinds(cases, *quick):
    """Every case of a target whose steps may block; of a quick one the cases that ``quick`` names, the rest as slow."""
    return [
        pytest.param(target, *case, marks=pytest.mark.slow if target == "Quick" and case[0] not in quick else ())
        for target in ("Desk", "Quick")
        for case in cases
    ]


def test_a_task_may_offer_other_tools_than_the_one_before():
    async def offered(pool):
        episode = await PoolHost(pool, "train").open()
        found = []
        for task in (1, "subtraction", "subtraction", 2):
            await episode.reset(task)
            found.append([tool.name for tool in episode.tools])
        return found

    with a_pool() as pool:
        assert asyncio.run(offered(pool)) == [["add"], ["subtract"], ["subtract"], ["add"]]


@pytest.mark.parametrize("target", ["Desk", "Quick"])
def test_an_episode_is_what_it_would_be_in_this_process(target):
    async def play(pool):
        episode = await PoolHost(pool, "held_out").open()
        assert (episode.name, episode.tools[0].name) == ("odd", "add")
        assert (await episode.reset("b ü")).messages[0].content == "held_out 'b ü'"
        calls = (
            ToolCall(id="c0", name="add", arguments={"x": 2**63 - 1, "y": [1.5, None, {"z": "\u2028\n"}]}),
            ToolCall(id="c1", name="add", arguments=None, raw_arguments='{"x": \x00'),
        )
        found = await episode.step(Message(role="assistant", content="calls", tool_calls=calls))
        assert found.messages[0].content == repr([(c.name, c.arguments, c.raw_arguments) for c in calls])
        assert not found.done
        outcome = await episode.grade()
        assert (outcome.reward, outcome.components, outcome.checks[0].detail) == (0.5, {"heard": 1.0}, "é")
        await episode.close()

    with a_pool(target=target) as pool:
        asyncio.run(play(pool))
        asyncio.run(play(pool))  # workers outlive an event loop


@pytest.mark.parametrize("host", [PoolHost, None])
def test_a_reset_may_change_the_tools(host):
    async def play(make):
        episode = await make.open()
        seen = [episode.tools[0].name]
        for task in (1, "other tools", "other tools again"):
            await episode.reset(task)
            seen.append(episode.tools[0].name)
        await episode.close()
        return seen

    with a_pool() as pool:
        seen = asyncio.run(play(PoolHost(pool, "train") if host else InProcess(Odd)))
    assert seen == ["add", "add", "other tools", "other tools again"]


def test_all_calls_of_an_episode_are_made_in_one_thread():
    async def play(pool):
        (pid, same), (other, _) = [(await text(e, "pid")).split() for e in await opened(pool, 2)]
        assert same == "True" and pid == other and int(pid) != os.getpid()

    with a_pool() as pool:
        asyncio.run(play(pool))


@pytest.mark.parametrize("target", ["Desk", "Quick"])
def test_steps_of_one_moment_share_a_line(target, monkeypatch):
    written = []

    def write(descriptor, data):
        written.append(bytes(data))
        return real_write(descriptor, data)

    async def play(pool):
        episodes = await opened(pool, 32)
        monkeypatch.setattr(os, "write", write)
        assert await asyncio.gather(*[text(e, "hello") for e in episodes]) == ["hello 1"] * 32
        monkeypatch.undo()
        assert len(written) == 1 and written[0].count(b'"step"') == 32

    real_write = os.write
    with a_pool(target=target) as pool:
        asyncio.run(play(pool))


def test_episodes_that_sleep_do_so_at_the_same_time():
    async def play(pool):
        episodes = await opened(pool, 64)
        started = time.monotonic()
        assert await asyncio.gather(*[text(e, "sleep 1") for e in episodes]) == ["awake"] * 64
        return time.monotonic() - started

    with a_pool(2) as pool:
        assert 1.0 <= asyncio.run(play(pool)) < 8.0


FAULTS = (
    ("raise", r"LookupError: no such order \ud83d"),
    ("sysexit", "SystemExit: 3"),
    ("surrogate", "PydanticSerializationError"),
    ("none", "TypeError: expected an Observation of Messages, got 'None'"),
    ("nan", "expected a Message, got \"{'role': 'user', 'content': 7"),
    ("long 17", "ValueError: step returned 1782"),
)


@pytest.mark.parametrize(("target", "words", "expected"), in_both_kinds(FAULTS, "raise", "sysexit"))
def test_a_fault_breaks_its_episode_and_leaves_the_worker(target, words, expected):
    async def play(pool):
        odd, fine = await opened(pool, 2)
        assert expected in await fault(odd, words)
        await odd.close()
        assert await text(fine, "hello") == "hello 1"
        (again,) = await opened(pool, 1)
        assert (await text(again, "pid")).split()[0] == (await text(fine, "pid")).split()[0]

    with a_pool(target=target) as pool:
        asyncio.run(play(pool))


ENDS = (
    ("exit", "the worker exited with status 3; its last line was 'the disk is full'"),
    ("kill", "the worker was killed by SIGKILL"),
    ("lines hello", "the worker was stopped: it wrote 'hello' among its answers"),
    ("lines [7]", "it wrote '[7]' among its answers"),
    ("lines " + "[" * 5000, "among its answers"),
    ('lines [[123456,"early"]]', "it answered request 123456, for which nobody waits"),
    ("flood", "it wrote a line of more than 75497472 bytes among its answers"),
)


@pytest.mark.parametrize(("target", "words", "expected"), in_both_kinds(ENDS, "exit", "kill"))
def test_the_end_of_a_worker_breaks_its_own_episodes_and_another_takes_its_place(target, words, expected):
    async def play(pool):
        odd, elsewhere, idle, waiting = await opened(pool, 4)
        pids = [(await text(e, "pid")).split()[0] for e in (odd, elsewhere, idle, waiting)]
        assert pids[0] == pids[2] and pids[1] == pids[3] and pids[0] != pids[1]
        assert expected in await fault(odd, words)
        assert expected in await fault(idle, "hello")
        with pytest.raises(EnvironmentFault, match="worker"):
            await idle.grade()
        assert await text(elsewhere, "hello") == "hello 2" and await text(waiting, "hello") == "hello 2"
        for episode in (odd, idle):
            await episode.close()
        anew = await opened(pool, 2)
        assert {(await text(e, "pid")).split()[0] for e in anew} - set(pids)
        assert not alive(int(pids[0]))

    with a_pool(2, target) as pool:
        asyncio.run(play(pool))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("target", ["Desk", "Quick"])
def test_what_is_printed_and_what_a_forked_child_says_is_not_an_answer(target):
    async def play(pool):
        odd, fine = await opened(pool, 2)
        assert await text(odd, "print") == "printed"
        assert await text(odd, "fork") == "forked"
        assert await text(odd, "hello") == "hello 3" and await text(fine, "hello") == "hello 1"
        child = pool.workers()[0]._child
        assert child.read_output() and b"not for the lines" in child._printed and b"Traceback" not in child._printed

    with a_pool(target=target) as pool:
        asyncio.run(play(pool))


def test_a_worker_that_dies_is_missed_at_once_even_if_its_children_live_on():
    async def play(pool):
        (odd,) = await opened(pool, 1)
        assert await text(odd, "linger") == "forked"
        started = time.monotonic()
        assert "killed by SIGKILL" in await fault(odd, "kill")
        assert time.monotonic() - started < 20  # of the 30 of target.step_seconds

    with a_pool() as pool:
        asyncio.run(play(pool))


def test_an_answer_that_comes_too_late_is_nobody_s_fault():
    async def play(pool):
        odd, fine = await opened(pool, 2)
        assert "step took longer than target.step_seconds=1" in await fault(odd, "sleep 1.4")
        await odd.close()
        await asyncio.sleep(0.8)
        assert await text(fine, "hello") == "hello 1"

    with a_pool(step_seconds=1.0) as pool:
        asyncio.run(play(pool))


@pytest.mark.parametrize("words", ["sleep 60", "spin"])
def test_a_hang_breaks_its_episode_alone_and_its_worker_is_killed_after_the_others(words):
    async def play(pool):
        odd, fine = await opened(pool, 2)
        pid = int((await text(fine, "pid")).split()[0])
        assert await fault(odd, words) == "step took longer than target.step_seconds=1"
        await odd.close()
        assert await text(fine, "hello") == "hello 2"  # in the same worker
        (anew,) = await opened(pool, 1)
        assert int((await text(anew, "pid")).split()[0]) != pid and alive(pid)
        await fine.grade()
        await fine.close()
        assert not alive(pid)
        assert await text(anew, "hello") == "hello 2"

    with a_pool(step_seconds=1.0) as pool:
        asyncio.run(play(pool))


def test_a_hang_of_quick_environments_breaks_what_waits_for_the_same_worker():
    async def play(pool):
        odd, other = await opened(pool, 2)
        hung, blocked = await asyncio.gather(fault(odd, "sleep 60"), fault(other, "hello"))
        assert hung == blocked == "step took longer than target.step_seconds=1"
        for episode in (odd, other):
            await episode.close()
        (anew,) = await opened(pool, 1)
        assert await text(anew, "hello") == "hello 1"

    with a_pool(target="Quick", step_seconds=1.0) as pool:
        asyncio.run(play(pool))


def test_the_end_of_an_episode_s_time_frees_it_and_the_worker_is_replaced_if_it_hangs():
    async def play(pool):
        odd, fine = await opened(pool, 2)
        pid = int((await text(fine, "pid")).split()[0])
        with pytest.raises(TimeoutError):
            async with episode_clock(0.2):
                await odd.step(said("sleep 60"))
        await odd.close()
        assert await text(fine, "hello") == "hello 2"
        await asyncio.sleep(1.5)  # target.step_seconds
        await fine.close()
        assert not alive(pid)

    with a_pool(step_seconds=1.0) as pool:
        asyncio.run(play(pool))


def test_a_worker_holds_no_more_episodes_than_its_target_allows_and_the_wait_is_off_the_clock():
    async def play(pool):
        ended = []

        async def episode(number):
            async with episode_clock(1.0):
                opened = await PoolHost(pool, "train").open()
                pid = (await text(opened, "pid")).split()[0]
                open_now[pid] = open_now.get(pid, 0) + 1
                assert open_now[pid] == 1
                await opened.step(said("sleep 0.4"))
                open_now[pid] -= 1
                await opened.close()
            ended.append(number)

        open_now: dict[str, int] = {}
        await asyncio.gather(*map(episode, range(8)))
        assert sorted(ended) == list(range(8)) and len(open_now) == 2

    with a_pool(2, pinned=1) as pool:
        asyncio.run(play(pool))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"load": "no data"}, "a worker cannot start: RuntimeError: no data"),
        ({"load": "exit"}, "SystemExit: no licence"),
        ({"colour": 1}, "a worker cannot start: target 'odd_target:Desk': got an unexpected keyword argument 'colour'"),
    ],
)
def test_a_target_that_cannot_be_loaded_breaks_each_episode_with_its_reason(parameters, expected):
    async def play(pool):
        for _ in range(2):
            with pytest.raises(EnvironmentFault) as caught:
                await PoolHost(pool, "train").open()
            assert expected in str(caught.value)

    with a_pool(**parameters) as pool:
        asyncio.run(play(pool))


def test_a_killed_worker_breaks_the_episodes_in_flight_and_no_others():
    async def play(pool):
        episodes = await opened(pool, 8)
        pids = [int((await text(e, "pid")).split()[0]) for e in episodes]
        steps = [asyncio.ensure_future(e.step(said("sleep 0.5"))) for e in episodes]
        await asyncio.sleep(0.1)
        os.kill(pids[0], signal.SIGKILL)
        results = await asyncio.gather(*steps, return_exceptions=True)
        for pid, result in zip(pids, results, strict=True):
            if pid == pids[0]:
                assert isinstance(result, EnvironmentFault) and "killed by SIGKILL" in str(result)
            else:
                assert result.messages[0].content == "awake"

    with a_pool(2) as pool:
        asyncio.run(play(pool))


def test_closing_kills_the_workers_and_what_they_have_forked():
    async def play(pool):
        (episode,) = await opened(pool, 1)
        return int((await text(episode, "pid")).split()[0])

    with a_pool() as pool:
        pid = asyncio.run(play(pool))
        assert alive(pid)
    assert not alive(pid)
