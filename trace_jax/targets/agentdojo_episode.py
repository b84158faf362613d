"""One AgentDojo user task: the benchmark's own environment, tool executor and utility, without an attack."""

import datetime
from functools import cache
from importlib import import_module
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.protocol import Observation, Outcome

BENCHMARK_VERSION = "v1.2.2"
SUITES = ("banking", "slack", "travel", "workspace")
_NOW = datetime.datetime(2024, 12, 31, 12)  # after every date in the suites, as the clock of any player is


class AgentDojoEpisode:
    """One request of the user. A message without calls is the answer to it and ends the episode.

    Before ``reset``, ``tools`` are those of all suites; after it those of the task's suite. As in the benchmark, calls
    are carried out in at most 15 messages; the next message ends the episode.
    """

    name = "agentdojo"

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools

    def reset(self, task: str) -> Observation:
        """Start the episode of a task ``SUITE/user_task_N``, with the benchmark's default system message."""
        suite, _, id = task.partition("/")
        if suite not in SUITES or id not in load_suite(suite).user_tasks:
            raise ValueError(f"no task {task!r}: tasks are SUITE/user_task_N, SUITE one of {', '.join(SUITES)}")
        self._suite, self.tools = load_suite(suite), tools_of(suite)
        self._task = self._suite.user_tasks[id]
        self._runtime = import_module("agentdojo.functions_runtime").FunctionsRuntime(self._suite.tools)
        execution = import_module("agentdojo.agent_pipeline.tool_execution")
        self._executor, self._limit = execution.ToolsExecutor(), execution.ToolsExecutionLoop([]).max_iters
        self._environment = self._task.init_environment(initial_environment(suite).model_copy(deep=True))
        self._before = self._environment.model_copy(deep=True)
        self._messages: list[dict[str, Any]] = []  # the agent's, as the benchmark has them
        self._answered = self._done = False
        return Observation(
            (Message(role="system", content=_system_message()), Message(role="user", content=self._task.PROMPT))
        )

    def step(self, message: Message) -> Observation:
        """Carry out the calls, or take the answer."""
        if self._done:
            raise RuntimeError(f"{self._suite.name}/{self._task.ID}: step after the answer")
        call_type = import_module("agentdojo.functions_runtime").FunctionCall
        calls = [
            None if call.arguments is None else call_type(function=call.name, args=call.arguments, id=call.id)
            for call in message.tool_calls
        ]
        content = None if message.content is None else [{"type": "text", "content": message.content}]
        full = len(self._messages) == self._limit
        valid = [call for call in calls if call is not None]
        self._messages.append({"role": "assistant", "content": content, "tool_calls": valid})
        self._answered = not calls
        self._done = self._answered or full
        if self._done:
            return Observation((), done=True)
        return Observation(tuple(map(self._execute, message.tool_calls, calls)))

    def grade(self) -> Outcome:
        """The benchmark's utility, 0 or 1, of the state as it is and the last message."""
        calls = [call for message in self._messages for call in message["tool_calls"]]
        output = self._messages[-1]["content"] if self._messages else None
        passed = bool(self._suite._check_task_result(self._task, output or [], self._before, self._environment, calls))
        checks = (Check(name="utility", passed=passed), Check(name="answered", passed=self._answered))
        return Outcome(float(passed), checks=checks)

    def _execute(self, call: ToolCall, dojo_call: Any) -> Message:
        if dojo_call is None:
            content = f"ValidationError: the arguments of {call.name} are not a JSON object"
        else:
            message = {"role": "assistant", "content": None, "tool_calls": [dojo_call]}
            *_, messages, _ = self._executor.query("", self._runtime, self._environment, [message])
            content = messages[-1]["error"] or messages[-1]["content"][0]["content"]
        return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)


@cache
def load_suite(name: str) -> Any:
    """The suite called ``name``, a ``TaskSuite`` of the benchmark, whose episodes repeat exactly."""
    tools = "agentdojo.default_suites.v1.tools"
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: _NOW))
    vars(import_module(f"{tools}.email_client"))["datetime"] = clock
    vars(import_module(f"{tools}.cloud_drive_client"))["datetime"] = clock
    # A set of participants has another order in each process.
    vars(import_module(f"{tools}.calendar_client"))["set"] = dict.fromkeys
    return import_module("agentdojo.task_suite.load_suites").get_suite(BENCHMARK_VERSION, name)


@cache
def tools_of(suite: str) -> tuple[Tool, ...]:
    """The tools of a suite."""
    return tuple(
        Tool(name=tool.name, description=tool.description, parameters=tool.parameters.model_json_schema())
        for tool in load_suite(suite).tools
    )


@cache
def initial_environment(suite: str) -> Any:
    """The environment that every task of a suite begins in. It takes 10 to 140 ms to load, a copy 2 at most."""
    return load_suite(suite).load_and_inject_default_environment({})


@cache
def _system_message() -> str:
    """The message "default" of the benchmark."""
    text = files("agentdojo").joinpath("data", "system_messages.yaml").read_text(encoding="utf-8")
    message: str = import_module("yaml").safe_load(text)["default"]
    return message
