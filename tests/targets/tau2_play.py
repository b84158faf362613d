"""Plays τ²-bench as a target, and as its own package does. Runs in the Python that has the package, without pytest.

python tests/targets/tau2_play.py gold:retail       # the known-good agent: one JSON line
python tests/targets/tau2_play.py digest:mock       # what every episode looks like
python tests/targets/tau2_play.py record:airline > airline.jsonl  # the known-good agent's trajectories
"""

import hashlib
import itertools
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer

import without_faces  # noqa: F401

from trace_jax.contract.trajectory import Message, Policy, ToolCall, Trajectory
from trace_jax.errors import UserError
from trace_jax.targets.tau2_bench import Tau2Bench

Scripted = list[Message]
TARGETS = {
    "airline": {"domain": "airline", "user": "gold"},
    "retail": {"domain": "retail", "user": "gold"},
    "telecom": {"domain": "telecom", "user": "gold"},
    "telecom_solo": {"domain": "telecom", "solo": True},
    "mock": {"domain": "mock", "user": "gold"},
}


def call(number: int, name: str, arguments: dict | None, raw: str | None = None) -> Message:
    made = ToolCall(id=f"call_{number}", name=name, arguments=arguments, raw_arguments=raw)
    return Message(role="assistant", tool_calls=(made,))


def told(text: str) -> Message:
    return Message(role="assistant", content=text)


def gold(task, solo: bool) -> Scripted:
    """What an agent says that does all actions of the solution, and tells all that is to be told."""
    criteria = task.evaluation_criteria
    actions = (criteria and criteria.actions) or []
    said = [
        call(number, action.name, action.arguments)
        if solo or action.requestor == "assistant"
        else told(f"Please do this: {action.get_func_format()}")
        for number, action in enumerate(actions)
    ]
    if solo:
        return [*said, call(len(said), "done", {})]
    return [*said, told("Done. " + " ".join((criteria and criteria.communicate_info) or []))]


def played(environment, task: str, script: Iterable[Message]):
    """The agent's side of an episode, and its outcome. What is left of the script when it is done is not said."""
    observation = environment.reset(task)
    seen = [*observation.messages]
    for message in script:
        if observation.done:
            break
        observation = environment.step(message)
        seen += [message, *observation.messages]
    return seen, environment.grade()


def digest(seen: list[Message], outcome) -> str:
    text = json.dumps([message.model_dump(mode="json") for message in seen]) + repr(outcome)
    return hashlib.sha256(text.encode()).hexdigest()


def package_tasks(target: Tau2Bench) -> dict:
    from tau2.registry import registry

    return {task.id: task for task in registry.get_tasks_loader(target.name.split("_")[1])("base")}


def all_tasks(target: Tau2Bench) -> tuple[str, ...]:
    return target.tasks("train") + target.tasks("held_out")


def play_gold(target: Tau2Bench) -> dict:
    """The gold agent's score over all tasks, and the answers of tools that do not have the declared shape."""
    from jsonschema import Draft202012Validator

    environment, tasks, failed, misfits, answers = target.environment("train"), package_tasks(target), [], set(), 0
    for task in all_tasks(target):
        seen, outcome = played(environment, task, gold(tasks[task], target._solo))
        if outcome.reward != 1.0:
            failed.append(task)
        names = {made.id: made.name for message in seen for made in message.tool_calls}
        for message in seen:
            if message.role == "tool" and names[message.tool_call_id] != "done":
                answers += 1
                try:
                    value = json.loads(message.content)
                except ValueError:
                    value = message.content
                name = names[message.tool_call_id]
                if not Draft202012Validator(target.results[name]).is_valid(value):
                    misfits.add(name)
    return {"tasks": len(all_tasks(target)), "failed": failed, "answers": answers, "misfits": sorted(misfits)}


def record(target: Tau2Bench) -> None:
    """Prints what the gold agent plays, as trajectories."""
    environment, tasks = target.environment("train"), package_tasks(target)
    for number, task in enumerate(all_tasks(target)):
        seen, outcome = played(environment, task, gold(tasks[task], target._solo))
        episode = Trajectory(
            id=f"gold/{target.name}/{task}", target=target.name, task=task, split="train", seed=number, trial=0,
            policy=Policy(base="gold"), messages=tuple(seen), tools=environment.tools, reward=outcome.reward,
            termination="done")  # fmt: skip
        print(episode.model_dump_json())


def play_idle(target: Tau2Bench) -> dict:
    return {"passed": [*target.do_nothing("train"), *target.do_nothing("held_out")]}


def spoilt(script: Scripted, rng: random.Random) -> Scripted:
    """Part of a script, with calls left out, repeated, malformed or with a wrong argument."""
    *said, last = script
    kept = []
    for message in said[: rng.randint(0, len(said))] if rng.random() < 0.5 else said:
        kind = rng.choice(["as it is"] * 6 + ["left out", "twice", "malformed", "wrong argument", "unknown tool"])
        if kind == "left out":
            continue
        if kind != "as it is" and message.tool_calls:
            made = message.tool_calls[0]
            kept += {
                "twice": lambda made=made, message=message: [message],
                "malformed": lambda made=made: [call(900, made.name, None, '{"id": ')],
                "wrong argument": lambda made=made: [call(901, made.name, {k: "no" for k in made.arguments})],
                "unknown tool": lambda made=made: [call(902, "no_such_tool", made.arguments)],
            }[kind]()
        kept.append(message)
    if rng.random() < 0.05:
        kept += [call(910 + number, "no_such_tool", {}) for number in range(12)]  # too many errors
    return [*kept, last]


def play_partial(target: Tau2Bench, count: int = 200) -> dict:
    """Random partial replays, ours against the package's own run and evaluation."""
    environment, tasks, rng, rewards, differ = (
        target.environment("train"),
        package_tasks(target),
        random.Random(7),
        [],
        [],
    )
    for _ in range(count):
        task = rng.choice(all_tasks(target))
        script = spoilt(gold(tasks[task], target._solo), rng)
        ours = reward_or_error(lambda task=task, script=script: our_reward(environment, task, script))
        theirs = reward_or_error(lambda task=task, script=script: package_reward(target, tasks[task], script))
        rewards.append(ours)
        if ours != theirs:
            differ.append([task, ours, theirs])
    return {"count": count, "rewards": Counter(map(str, rewards)), "differ": differ}


def reward_or_error(play: Callable[[], tuple[float, str]]) -> tuple[float, str] | str:
    try:
        return play()
    except (ValueError, UserError) as error:
        return str(error.__cause__ or error)


def our_reward(environment, task: str, script: Scripted) -> tuple[float, str]:
    """The reward, and why the episode ended."""
    _, outcome = played(environment, task, script)
    return outcome.reward, next(check.detail for check in outcome.checks if check.name == "finished")


def package_reward(target: Tau2Bench, task, script: Scripted) -> tuple[float, str]:
    """The reward by the package's own run: its agents and orchestrator, with a model that says ``script``."""
    from tau2.agent import llm_agent
    from tau2.data_model.message import AssistantMessage
    from tau2.data_model.message import ToolCall as Call
    from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation
    from tau2.orchestrator.orchestrator import Orchestrator
    from tau2.registry import registry
    from tau2.user.user_simulator import DummyUser

    from trace_jax.targets.tau2_gold import GoldUser

    domain, solo, said = target.name.split("_")[1], target._solo, iter(script)

    def generate(**_) -> AssistantMessage:
        message = next(said)
        calls = [
            Call(id=made.id, name=made.name, arguments=made.arguments)
            if made.arguments is not None
            else Call(
                id=made.id, name=made.name, arguments={"arguments that are not a JSON object": made.raw_arguments}
            )
            for made in message.tool_calls
        ]
        return AssistantMessage(role="assistant", content=message.content, tool_calls=calls or None)

    llm_agent.generate = generate
    environment = registry.get_env_constructor(domain)(solo_mode=solo)
    user_tools = environment.get_user_tools() if environment.user_tools else None
    if solo:
        agent = llm_agent.LLMSoloAgent(environment.get_tools() + (user_tools or []), environment.get_policy(), task)
        user = DummyUser()
    else:
        agent = llm_agent.LLMAgent(environment.get_tools(), environment.get_policy())
        user = GoldUser(user_tools, task)
    run = Orchestrator(domain, agent, user, environment, task, max_steps=200, max_errors=10, solo_mode=solo)
    simulation = run.run()
    info = evaluate_simulation(simulation, task, EvaluationType.ALL, solo, domain)
    return info.reward, simulation.termination_reason.value


def play_interleaved(target: Tau2Bench, count: int = 32) -> dict:
    """Episodes that take turns, each against the same episode played alone."""
    tasks, rng = package_tasks(target), random.Random(3)
    chosen = [rng.choice(all_tasks(target)) for _ in range(count // 2)] * 2  # each task twice, at the same time
    scripts = [spoilt(gold(tasks[task], target._solo), rng) for task in chosen]
    environments = [target.environment("train") for _ in chosen]
    observations = [environment.reset(task) for environment, task in zip(environments, chosen, strict=True)]
    seen = [[*observation.messages] for observation in observations]
    for turn in itertools.zip_longest(*scripts):
        for number, message in enumerate(turn):
            if message is not None and not observations[number].done:
                observations[number] = environments[number].step(message)
                seen[number] += [message, *observations[number].messages]
    together = [digest(told, env.grade()) for told, env in zip(seen, environments, strict=True)]
    alone = [digest(*played(target.environment("train"), *pair)) for pair in zip(chosen, scripts, strict=True)]
    return {"episodes": count, "differ": [t for t, a, b in zip(chosen, together, alone, strict=True) if a != b]}


def play_digest(target: Tau2Bench, count: int = 20) -> dict:
    """A digest of some gold episodes. In telecom each begins with a new bill, whose id must not depend on chance."""
    environment, tasks = target.environment("train"), package_tasks(target)
    new_bill = [
        call(800, "refuel_data", {"customer_id": "C1002", "line_id": "L1004", "gb_amount": 1.0}),
        call(801, "get_customer_by_id", {"customer_id": "C1002"}),
    ]
    chosen = all_tasks(target)[:count]
    scripts = [[*new_bill, *gold(tasks[task], target._solo)] for task in chosen]
    episodes = [played(environment, *pair) for pair in zip(chosen, scripts, strict=True)]
    bills = {
        bill for seen, _ in episodes for message in seen for bill in re.findall(r'"B0[^"]+', message.content or "")
    }
    return {"digests": [digest(*episode) for episode in episodes], "bills": sorted(bills)}


class Endpoint(BaseHTTPRequestHandler):
    """A language model's endpoint that gives prepared answers."""

    answers: list[dict] = []
    asked: list[tuple[str, dict]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.headers["authorization"], request))
        answer = self.answers.pop(0)
        failed = "error" in answer
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None} | answer}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [choice]}
        body = json.dumps(answer if failed else whole | {"usage": usage}).encode()
        self.send_response(401 if failed else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def play_model_user(_: Tau2Bench) -> dict:
    """Telecom with a user played by a model, which calls a tool, speaks, and hangs up; then one that fails."""
    os.environ["OPENAI_API_KEY"] = "sk-secret"
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    toggling = {"id": "u1", "type": "function", "function": {"name": "toggle_airplane_mode", "arguments": "{}"}}
    Endpoint.answers[:] = [
        {"content": "My phone has no service."},
        {"tool_calls": [toggling]},
        {"content": "Airplane mode is now off."},
        {"content": "###STOP###"},
        {"content": "Hello."},
        {"error": {"message": "bad key sk-secret", "type": "invalid_request_error"}},
        {"content": "Hello."},
        *[{"content": " "}] * 4,
    ]
    url = f"http://127.0.0.1:{server.server_port}/v1"
    target = Tau2Bench(domain="telecom", user={"url": url, "model": "small", "max_tokens": 50})
    environment = target.environment("train")
    task = next(task for task in target.tasks("train") if "airplane_mode_on" in task)
    seen, outcome = played(environment, task, [told("Toggle airplane mode."), told("Anything else?")])
    asked = list(Endpoint.asked)
    errors, kept = [], []
    for _ in range(2):
        environment.reset(task)
        try:
            environment.step(told("Hello?"))
        except RuntimeError as error:
            errors.append(str(error))
            kept.append(environment.extra)
    server.shutdown()
    return {
        "seen": [[message.role, message.content] for message in seen[1:]],
        "ended": outcome.checks[0].detail,
        "extra": outcome.extra,
        "keys": sorted({key for key, _ in asked}),
        "requests": [
            {name: request.get(name) for name in ("model", "temperature", "max_tokens")} for _, request in asked
        ],
        "tools": sorted(tool["function"]["name"] for tool in asked[0][1]["tools"]),
        "said_to_user": [message["role"] for message in asked[-1][1]["messages"]],
        "errors": errors,
        "kept": kept,
    }


def play_ungraded(target: Tau2Bench) -> dict:
    """An episode that the package's evaluator cannot grade: nothing was created, and the task asserts about it."""
    environment = target.environment("train")
    environment.reset("create_task_1_with_env_assertions")
    environment.step(told("Done."))
    try:
        return {"told": environment.grade().reward}
    except UserError as error:
        return {"told": str(error)}


def play_faults(_: Tau2Bench) -> dict:
    """What agents say that is not as it should be: telecom solo and mock."""
    solo = Tau2Bench(**TARGETS["telecom_solo"])
    environment, task = solo.environment("train"), solo.tasks("train")[0]
    [first, *_] = environment.reset(task).messages
    calls = (
        ToolCall(id="a", name="no_such_tool", arguments={}),
        ToolCall(id="b", name="toggle_airplane_mode", arguments=None, raw_arguments='{"x"'),
        ToolCall(id="c", name="toggle_airplane_mode", arguments={"requestor": "user", "tool_name": 1}),
        ToolCall(id="d", name="check_status_bar", arguments={}),
    )
    spoilt = ToolCall(id="f", name="done", arguments=None, raw_arguments='{"x"')
    odd = environment.step(Message(role="assistant", content="###STOP###", tool_calls=calls))
    not_over = environment.step(Message(role="assistant", tool_calls=(spoilt,)))
    done = ToolCall(id="e", name="done", arguments={})
    last = environment.step(Message(role="assistant", tool_calls=(done, calls[3])))
    graded = environment.grade()
    ends = {}
    for name, message in {"text": told("I am done."), "empty": told(" "), "stop": told("###STOP###")}.items():
        environment.reset(task)
        over = environment.step(message)
        ends[name] = [over.done, environment.grade().reward, environment.grade().checks[0].detail]
    environment.reset(task)
    ends["unfinished"] = [False, environment.grade().reward, environment.grade().checks[0].detail]
    environment.reset(task)
    errors = sum(not environment.step(call(n, "no_such_tool", {})).done for n in range(12 - 2))
    ends["errors"] = [errors, environment.grade().reward, environment.grade().checks[0].detail]
    environment.reset(task)
    steps = next(n for n in range(300) if environment.step(call(n, "check_status_bar", {})).done)
    ends["steps"] = [steps, environment.grade().reward, environment.grade().checks[0].detail]
    refused = []
    for wrong in (lambda: environment.reset("no such task"), lambda: Tau2Bench("bank"), lambda: Tau2Bench("retail")):
        try:
            wrong()
        except UserError as error:
            refused.append(str(error))
    return {
        "prompt": [first.role, "<ticket>" in first.content],
        "spoilt": [[message.tool_call_id, message.content] for message in not_over.messages] + [not_over.done],
        "odd": [[message.role, message.tool_call_id, message.content] for message in odd.messages],
        "last": [[message.tool_call_id, message.content] for message in last.messages] + [last.done],
        "graded": [graded.reward, {check.name: check.passed for check in graded.checks}, graded.components],
        "ends": ends,
        "refused": refused,
    }


PARTS = {
    "gold": play_gold,
    "idle": play_idle,
    "partial": play_partial,
    "interleaved": play_interleaved,
    "digest": play_digest,
    "model_user": play_model_user,
    "faults": play_faults,
    "ungraded": play_ungraded,
}


def main(*arguments: str) -> None:
    """``PART…:TARGET…`` each: plays the parts, separated by commas, of the targets. ``record:TARGET`` records one."""
    for argument in arguments:
        parts, _, targets = argument.partition(":")
        if parts == "record":
            record(Tau2Bench(**TARGETS[targets]))
            continue
        for name in targets.split(","):
            target = Tau2Bench(**TARGETS[name])
            for part in parts.split(","):
                part, _, count = part.partition("=")
                begun = time.time()
                found = PARTS[part](target, *[int(count)] if count else [])
                found |= {"part": part, "target": name, "version": target.version}
                print(json.dumps(found | {"seconds": round(time.time() - begun, 1)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
