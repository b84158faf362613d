"""One BFCL multi-turn episode: the benchmark's back-end classes and its checks after each turn, nothing ``eval``ed."""

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import compress
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.targets.bfcl_tasks import BfclTask, read_task

_LONGEST = 300  # characters of a check's detail
_CHECKER = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker"


class BfclEpisode:
    """The user says one message a turn; a message of the agent without calls ends its turn.

    Before ``reset``, ``tools`` are those of all classes; after it those that the task offers at the start. Functions
    that the category miss_func holds back are shown in a later user message. As in the benchmark, a call of one is
    carried out at any time, and more than 20 messages with calls in a turn end the episode.
    """

    name = "bfcl"

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools

    def reset(self, task: str) -> Observation:
        """Start the episode of a task. There is no system message."""
        self._task = read_task(task)
        self.tools = self._task.tools
        self._model, self._gold = back_ends(self._task), back_ends(self._task)
        self._turn, self._done = 0, False
        self._steps: list[list[str]] = []  # results of this turn's calls, message by message
        self._results: list[str] = []  # results of all turns
        self._checks: list[Check] = []
        return self._user()

    def step(self, message: Message) -> Observation:
        """Carry out the calls, or end the turn and return the user's next message."""
        if self._done:
            raise RuntimeError(f"{self._task.id}: step after the last turn")
        if message.tool_calls:
            answers = tuple(map(self._answer, message.tool_calls))
            valid = [call.arguments is not None for call in message.tool_calls]
            self._steps.append([answer.content or "" for answer in compress(answers, valid)])
            if len(self._steps) > import_module("bfcl_eval.constants.default_prompts").MAXIMUM_STEP_LIMIT:
                self._end_turn()
                self._done = True
            return Observation(answers, self._done)
        self._end_turn()
        self._done = self._turn == len(self._task.users)
        return Observation((), done=True) if self._done else self._user()

    def grade(self) -> Outcome:
        """1 if all turns were played and every check of the benchmark passed. It stops at the first that fails."""
        if self._steps:  # a limit of ours ended the turn; the benchmark judges it as well
            self._end_turn()
        self._done = True
        turns = len(self._task.users)
        played = Check(
            name="force_terminated", passed=self._turn == turns, detail=f"{self._turn} of {turns} turns were played"
        )
        checks = (*self._checks, played)
        return Outcome(float(all(check.passed for check in checks)), checks=checks)

    def _user(self) -> Observation:
        return Observation((Message(role="user", content=self._task.users[self._turn]),))

    def _answer(self, call: ToolCall) -> Message:
        if call.arguments is None:
            content = f"Error during execution: the arguments of {call.name} are not a JSON object"
        else:
            content = execute(self._model, call.name, (), call.arguments)
        return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)

    def _end_turn(self) -> None:
        gold = self._task.gold[self._turn]
        wanted = [execute(self._gold, call.name, call.arguments, call.keywords) for call in gold]
        self._results += [result for step in self._steps for result in step]
        if gold and all(check.passed for check in self._checks):
            self._judge(wanted)
        self._turn += 1
        self._steps = []

    def _judge(self, wanted: list[str]) -> None:
        """The checks of ``multi_turn_checker``, in its order: the first failure is the last check of the episode."""
        checker = import_module(_CHECKER)
        if not self._record("empty_turn_model_response", any(self._steps), f"{len(self._steps)} messages with calls"):
            return
        state = checker.state_checker(self._model, self._gold)
        differing = ", ".join(state.get("details", {}).get("differences", ()))
        if not self._record("instance_state_mismatch", state["valid"], f"{state.get('error_message', '')} {differing}"):
            return
        response = checker.response_checker(self._results, wanted, self._turn)
        missing = list(response.get("details", {}).get("missing_items", ()))
        self._record("execution_response_mismatch", response["valid"], f"missing {missing}")

    def _record(self, name: str, passed: bool, detail: str) -> bool:
        self._checks.append(Check(name=name, passed=passed, detail=f"turn {self._turn}: {detail}"[:_LONGEST].strip()))
        return passed


def back_ends(task: BfclTask) -> dict[str, Any]:
    """New instances of the task's classes that share nothing with others.

    The benchmark keeps its instances in module globals, and those of one process share the credit cards that the
    category long_context adds, so that an episode would spend another's money.
    """
    config = import_module("bfcl_eval.constants.executable_backend_config")
    instances = {}
    for name in task.classes:
        instances[name] = getattr(import_module(config.CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in config.STATELESS_CLASSES:
            scenario = task.configuration.get(name, {})
            instances[name]._load_scenario(copy.deepcopy(scenario), long_context=task.long_context)
    return copy.deepcopy(instances)


def execute(instances: Mapping[str, Any], name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """The result of a public method, or of its failure, as text that equals the benchmark's."""
    methods = [getattr(instance, name, None) for instance in instances.values() if not name.startswith("_")]
    method = next(filter(inspect.ismethod, methods), None)
    if method is None:
        return f"Error during execution: name {name!r} is not defined"
    try:
        result = _call(method, arguments, keywords)
    except Exception as error:  # the benchmark tells the agent whatever a back-end raises
        return f"Error during execution: {error}"
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            return str(result)
    return str(result)


def _call(method: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """``method(…)`` with copies of arguments and defaults: back-ends keep the lists that they get, and change them."""
    try:
        bound = inspect.signature(method).bind(*arguments, **keywords)
    except TypeError:
        return method(*arguments, **keywords)  # raises with Python's own words, as in the benchmark
    bound.apply_defaults()
    return method(*copy.deepcopy(bound.args), **copy.deepcopy(bound.kwargs))
