"""BFCL's own solutions and evaluator, for ``conformance.py``."""

import inspect
import itertools
import json
from typing import Any

from bfcl_eval.constants.default_prompts import MAXIMUM_STEP_LIMIT
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.targets.bfcl import Bfcl
from trace_jax.targets.bfcl_episode import back_ends
from trace_jax.targets.bfcl_tasks import _entries, read_task

_NUMBERS = itertools.count()


def make() -> Bfcl:
    return Bfcl()


def solution(id: str) -> list[Message]:
    """All calls of a turn in one message: a turn of some solutions has more calls than an agent may send messages."""
    task, script = read_task(id), []
    instances = back_ends(task).values()
    for turn in task.gold:
        calls = []
        for number, call in enumerate(turn):
            method = next(method for each in instances if inspect.ismethod(method := getattr(each, call.name, None)))
            arguments = dict(inspect.signature(method).bind(*call.arguments, **call.keywords).arguments)
            calls.append(ToolCall(id=f"call_{number}", name=call.name, arguments=arguments))
        script += [Message(role="assistant", tool_calls=tuple(calls))] if calls else []
        script.append(Message(role="assistant", content="Done."))
    return script


def verdict(id: str, script: list[Message]) -> dict[str, Any]:
    """What ``multi_turn_checker`` says of the calls, which it evaluates as Python text."""
    entry, answer = _entries(id.removeprefix("multi_turn_").rpartition("_")[0])[id]
    gold = answer["ground_truth"]
    turns: list[list[list[str]]] = [[]]
    for message in script:  # as the benchmark's inference records them
        if message.tool_calls:
            turns[-1].append(
                [f"{c.name}({','.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in message.tool_calls]
            )
            if len(turns[-1]) > MAXIMUM_STEP_LIMIT:
                break
        else:
            turns.append([])
        if len(turns) > len(gold):
            break
    if not turns[-1]:
        turns.pop()
    if len(turns) != len(gold):
        return {"valid": False, "error_type": "multi_turn:force_terminated"}
    model = f"conformance_{next(_NUMBERS)}"
    found = multi_turn_checker(turns, gold, entry, id.rsplit("_", 1)[0], model)
    for name in [name for name in vars(multi_turn_utils) if name.startswith(f"{model}_")]:
        del vars(multi_turn_utils)[name]
    return {"valid": found["valid"], "error_type": found.get("error_type")}


def _python(call: ToolCall) -> str:
    return f"{call.name}({','.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def agrees(ours, theirs: dict[str, Any]) -> bool:
    """Whether the check that failed is the benchmark's error."""
    failed = [f"multi_turn:{check.name}" for check in ours.checks if not check.passed]
    return theirs["valid"] or theirs["error_type"] in failed


def answers() -> dict[str, Any]:
    """Our results of the solutions' calls against those of ``execute_multi_turn_func_call``, for every third task."""
    target, compared, differ = Bfcl(), 0, []
    environment = target.environment("train")
    for id in [*target.tasks("train"), *target.tasks("held_out")][::3]:
        environment.reset(id)
        task, model = read_task(id), f"conformance_{next(_NUMBERS)}"
        for message in solution(id):
            ours = [answer.content for answer in environment.step(message).messages]
            theirs, _ = multi_turn_utils.execute_multi_turn_func_call(
                [_python(call) for call in message.tool_calls],
                dict(task.configuration),
                list(task.classes),
                model,
                id,
                long_context="long_context" in id,
            )
            if message.tool_calls:
                compared += len(theirs)
                differ += [[id, *pair] for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    return {"compared": compared, "differ": differ}


def held_back() -> dict[str, Any]:
    """Functions of the category miss_func: whether they are offered too early, or never."""
    environment = Bfcl().environment("train")
    early, never, text = [], [], ""
    for entry, _ in _entries("miss_func").values():
        environment.reset(entry["id"])
        for turn, names in entry["missed_function"].items():
            text = read_task(entry["id"]).users[int(turn)]
            early += [name for name in names if name in {tool.name for tool in environment.tools}]
            never += [name for name in names if f'"name": "{name}"' not in text]
    return {"tasks": len(_entries("miss_func")), "offered_at_once": early, "never_shown": never, "text": text}


def endless() -> dict[str, Any]:
    """An agent that calls the same function until the episode is over."""
    environment = Bfcl().environment("train")
    environment.reset("multi_turn_base_0")
    call = ToolCall(id="call", name="ls", arguments={})
    said = (environment.step(Message(role="assistant", tool_calls=(call,))) for _ in range(40))
    messages = next((number for number, seen in enumerate(said, start=1) if seen.done), None)
    return {"messages": messages, **_graded(environment)}


def silent_second_turn() -> dict[str, Any]:
    """The solution of a task without the calls of its second turn."""
    environment = Bfcl().environment("train")
    environment.reset("multi_turn_base_0")
    script = solution("multi_turn_base_0")
    spoken = [i for i, message in enumerate(script) if not message.tool_calls]
    for message in [*script[: spoken[0] + 1], *script[spoken[1] :]]:
        environment.step(message)
    found = _graded(environment)
    return {**found, "failed": [[c.name, c.detail] for c in environment.grade().checks if not c.passed]}


def shared() -> dict[str, Any]:
    """What one episode leaves to the next where the benchmark's own runner lets it: default lists, and credit cards."""
    first, second = Bfcl().environment("train"), Bfcl().environment("train")
    task = next(id for id in Bfcl().tasks("train") if "TwitterAPI" in read_task(id).classes)
    tweets = []
    for environment in (first, second):
        environment.reset(task)
        user = read_task(task).configuration["TwitterAPI"]
        _say(environment, "authenticate_twitter", username=user["username"], password=user["password"])
        tweets.append(json.loads(_say(environment, "post_tweet", content="Hello")))
        _say(environment, "mention", tweet_id=tweets[-1]["id"], mentioned_usernames=["@neighbour"])
    travels = [id for id in Bfcl().tasks("train") if "long" in id and "TravelAPI" in read_task(id).classes]
    one, other = (back_ends(read_task(travels[0]))["TravelAPI"].credit_card_list for _ in range(2))
    return {
        "mentions": [tweet["mentions"] for tweet in tweets],
        "cards": len(one),
        "same_cards": [number for number in one if one[number] is other[number]],
    }


def _say(environment, name: str, **arguments: Any) -> str:
    call = ToolCall(id="call", name=name, arguments=arguments)
    return environment.step(Message(role="assistant", tool_calls=(call,))).messages[0].content


def _graded(environment) -> dict[str, Any]:
    grade = environment.grade()
    return {"reward": grade.reward, "failed": [check.name for check in grade.checks if not check.passed]}
