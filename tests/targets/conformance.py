"""What must hold of a benchmark's target. Runs in the Python that has its package, not in pytest.

    python tests/targets/conformance.py bfcl gold partial=200      # one JSON line for each part

The module ``TARGET_suite.py`` of this folder tells how to make the target, what its solutions are, and how the
benchmark's own evaluator judges what an agent said. It may have parts of its own.
"""

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import without_faces  # noqa: F401

from trace_jax.contract.trajectory import Message, ToolCall

Script = list[Message]  # what an agent says in an episode


def answered(suite, target) -> dict[str, list[str]]:
    """What each tool answers to the calls of all solutions."""
    found: dict[str, list[str]] = {}
    environment = target.environment("train")
    for id in [*target.tasks("train"), *target.tasks("held_out")]:
        environment.reset(id)
        for message in suite.solution(id):
            for answer in environment.step(message).messages:
                if answer.role == "tool":
                    found.setdefault(answer.name, []).append(answer.content)
    return found


def tasks(target) -> list[str]:
    return [*target.tasks("train"), *target.tasks("held_out")]


def play(environment, task: str, script: Script):
    """Says ``script`` until the episode is done; yields after each observation, and the grade at the end."""
    observation = environment.reset(task)
    yield [environment.tools, observation]
    for message in script:
        if observation.done:
            break
        observation = environment.step(message)
        yield observation
    yield environment.grade()


def outcome(environment, task: str, script: Script):
    return [*play(environment, task, script)][-1]


def gold(target, suite, count: int) -> dict[str, Any]:
    """The benchmark's solutions pass."""
    environment = target.environment("train")
    failed = [task for task in tasks(target) if outcome(environment, task, suite.solution(task)).reward != 1.0]
    return {"tasks": len(tasks(target)), "failed": failed}


def solutions(target, suite, count: int) -> dict[str, Any]:
    """What the benchmark's solution says in each task."""
    return {"scripts": {task: [message.model_dump() for message in suite.solution(task)] for task in tasks(target)}}


def idle(target, suite, count: int) -> dict[str, Any]:
    """What an agent passes that only says nothing."""
    silence = [Message(role="assistant", content="")] * 100
    passed = [task for task in tasks(target) if outcome(target.environment("train"), task, silence).reward == 1.0]
    return {
        "passed": passed,
        "declared": [task for split in ("train", "held_out") for task in target.do_nothing(split)],
    }


def partial(target, suite, count: int) -> dict[str, Any]:
    """Damaged solutions get the reward that the benchmark's own evaluator gives."""
    rng, environment, differ, passed, judged = random.Random(0), target.environment("train"), [], 0, 0
    while judged < count:
        task, donor = rng.sample(tasks(target), 2)
        script = damaged(suite.solution(task), suite.solution(donor), rng)
        theirs = suite.verdict(task, script)
        if theirs is None:  # the benchmark has no verdict on what ends there
            continue
        ours = outcome(environment, task, script)
        judged, passed = judged + 1, passed + (ours.reward == 1.0)
        if (ours.reward == 1.0) != theirs["valid"] or not suite.agrees(ours, theirs):
            differ.append([task, ours.reward, theirs, [message.model_dump() for message in script]])
    return {"judged": judged, "passed": passed, "differ": differ}


def interleaved(target, suite, count: int) -> dict[str, Any]:
    """Episodes that are played at once, in one process, are those that are played alone."""
    rng = random.Random(1)
    chosen = rng.sample(tasks(target), count // 2)
    scripts = [damaged(suite.solution(task), suite.solution(task), rng, times=i % 2) for i, task in enumerate(chosen)]
    pairs = [*zip(chosen, scripts, strict=True)] * 2  # each task twice, at the same time
    alone = [[*play(target.environment("train"), *pair)] for pair in pairs]
    together: list[list[Any]] = [[] for _ in pairs]
    running = {i: play(target.environment("train"), *pair) for i, pair in enumerate(pairs)}
    while running:
        i = rng.choice([*running])
        try:
            together[i].append(next(running[i]))
        except StopIteration:
            del running[i]
    return {"episodes": len(pairs), "leaked": [pairs[i][0] for i in range(len(pairs)) if alone[i] != together[i]]}


def digest(target, suite, count: int) -> dict[str, Any]:
    """A hash of everything that ``count`` episodes show."""
    found = hashlib.sha256()
    for task in tasks(target)[:: max(len(tasks(target)) // count, 1)]:
        found.update(repr([*play(target.environment("train"), task, suite.solution(task))]).encode())
    return {"digest": found.hexdigest()}


def faults(target, suite, count: int) -> dict[str, Any]:
    """Unknown and malformed calls get one answer each, and the solution still passes after them."""
    task = tasks(target)[0]
    calls = (
        ToolCall(id="a", name="no_such_tool", arguments={}),
        ToolCall(id="b", name="_load_scenario", arguments={}),
        ToolCall(id="c", name=target.environment("train").tools[0].name, arguments=None, raw_arguments="{"),
        ToolCall(id="d", name=target.environment("train").tools[0].name, arguments={"no_such": [1, {"x": None}]}),
    )
    script = [Message(role="assistant", tool_calls=calls), *suite.solution(task)]
    _, answers, *_, grade = play(target.environment("train"), task, script)
    return {
        "answers": [[message.role, message.tool_call_id, message.content] for message in answers.messages],
        "reward": grade.reward,
    }


def facts(target, suite, count: int) -> dict[str, Any]:
    """What the target tells of itself, for our own side to check."""
    return {
        "version": target.version,
        "splits": {split: target.tasks(split) for split in ("train", "held_out")},
        "results": dict(target.results),
        "tools": [tool.model_dump() for tool in target.environment("train").tools],
        "answered": answered(suite, target),
    }


def damaged(script: Script, donor: Script, rng: random.Random, times: int | None = None) -> Script:
    """``script`` after 0 to 3 accidents: calls lost, doubled, changed, swapped or from elsewhere; messages lost."""
    script = [*script]
    for _ in range(rng.randrange(4) if times is None else times):
        kind = rng.choice((_lose, _lose, _double, _change, _swap, _take, _invent, _cut, _repeat))
        script = kind(script, donor, rng)
    return script


def _with(script: Script, rng: random.Random, change: Callable[[list[ToolCall], int], None]) -> Script:
    """``script`` after ``change`` of the calls of one message, which gets the list and the number of a call in it."""
    acting = [i for i, message in enumerate(script) if message.tool_calls]
    if not acting:
        return script
    i = rng.choice(acting)
    calls = [*script[i].tool_calls]
    change(calls, rng.randrange(len(calls)))
    rest = [script[i].replace(tool_calls=tuple(calls))] if calls else []
    return [*script[:i], *rest, *script[i + 1 :]]


def _lose(script, donor, rng):
    return _with(script, rng, lambda calls, i: calls.pop(i))


def _double(script, donor, rng):
    return _with(script, rng, lambda calls, i: calls.insert(i, calls[i]))


def _change(script, donor, rng):
    def change(calls, i):
        arguments = dict(calls[i].arguments)
        if arguments:
            name = rng.choice([*arguments])
            arguments[name] = rng.choice((0, -1, 1.5, "", "x", "USD", None, True, [], [1], {}, f"{arguments[name]}"))
        calls[i] = calls[i].replace(arguments=arguments)

    return _with(script, rng, change)


def _swap(script, donor, rng):
    return _with(script, rng, lambda calls, i: calls.append(calls.pop(i)))


def _take(script, donor, rng):
    taken = [call for message in donor for call in message.tool_calls]
    return _with(script, rng, lambda calls, i: calls.insert(i, rng.choice(taken))) if taken else script


def _invent(script, donor, rng):
    made = ToolCall(id="invented", name="no_such_tool", arguments={"x": 1})
    return _with(script, rng, lambda calls, i: calls.insert(i, made))


def _cut(script, donor, rng):
    return script[: rng.randrange(1, len(script) + 1)]


def _repeat(script, donor, rng):
    i = rng.randrange(len(script))
    return [*script[:i], *[script[i]] * rng.choice((2, 22)), *script[i + 1 :]]


def main(name: str, *parts: str) -> None:
    suite = import_module(f"{name}_suite")
    target = suite.make()
    for part in parts:
        function, _, count = part.partition("=")
        arguments = (target, suite, int(count or 0)) if function in globals() else ()
        started = time.process_time()
        found = globals().get(function, getattr(suite, function, None))(*arguments)
        print(json.dumps({**found, "seconds": round(time.process_time() - started, 1)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
