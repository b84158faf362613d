"""An episode of ToolSandbox, played by a process of its own."""

import json
from collections.abc import Sequence
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.errors import UserError
from trace_jax.targets.common import without_key
from trace_jax.targets.toolsandbox_client import SandboxProcess

MOST_CALLS = 5  # in one message: the benchmark carries them out in every order, and rejects those that depend on it
_PERFECT = 1 - 1e-6


class ToolSandboxEpisode:
    """A scenario. Before ``reset``, ``tools`` are all tools of the checkout; after it those that the scenario offers.

    The benchmark cannot continue after a call to no tool or with malformed arguments. Here such a call gets an error,
    of which the other side hears nothing.
    """

    name = "toolsandbox"

    def __init__(self, path: str, user: Any, tools: tuple[Tool, ...], scenarios: frozenset[str]) -> None:
        self.tools = tools
        self._path, self._user, self._scenarios = path, user, scenarios
        self._process: SandboxProcess | None = None

    def reset(self, task: int | str) -> Observation:
        """Begins a scenario in a new process. Raises UserError if there is no such scenario."""
        if task not in self._scenarios:
            raise UserError(f"target 'toolsandbox': no scenario {task!r} in the category")
        self.close()
        self._process, self._calls = SandboxProcess(self._path), 0
        answer = self._ask(do="reset", task=task, user=self._user)
        self.tools = tuple(Tool(**tool["function"]) for tool in answer["tools"])
        return Observation(tuple(map(_message, answer["messages"])), answer["done"])

    def step(self, message: Message) -> Observation:
        """Carries out the calls, or passes the text to the user. Text that stands next to calls goes nowhere."""
        problems = {position: self._problem(call, position) for position, call in enumerate(message.tool_calls)}
        first, made, answers = self._calls, [], {}
        for position, call in enumerate(message.tool_calls):
            if (problem := problems[position]) is not None:
                answers[position] = Message(role="tool", content=f"Error: {problem}", tool_call_id=call.id)
                continue
            made.append({"id": f"call_{first + position}", "name": call.name, "arguments": json.dumps(call.arguments)})
        self._calls += len(message.tool_calls)
        if message.tool_calls and not made:
            return Observation(tuple(answers.values()))
        answer = self._ask(do="step", text=message.content or "", calls=made)
        news = []
        for heard in answer["messages"]:
            if heard["role"] == "tool":
                position = int(heard["tool_call_id"].removeprefix("call_")) - first
                call = message.tool_calls[position]
                answers[position] = Message(role="tool", content=heard["content"], tool_call_id=call.id)
            else:
                news.append(_message(heard))
        return Observation((*(answers[position] for position in sorted(answers)), *news), answer["done"])

    def grade(self) -> Outcome:
        """The similarity of the scenario's own evaluation, and how well each milestone was met."""
        found = self._ask(do="grade")
        similarity = float(found["similarity"])
        parts = {name: float(found[name]) for name in ("similarity", "milestone_similarity", "minefield_similarity")}
        checks = [
            Check(name=f"milestone.{index}", passed=match >= _PERFECT, detail=f"similarity {match:.3f}")
            for index, match in found["milestones"].items()
        ]
        checks.append(Check(name="no_minefield", passed=found["minefield_similarity"] == 0))
        return Outcome(similarity, parts | {"perfect": float(similarity >= _PERFECT)}, tuple(checks))

    def close(self) -> None:
        """Ends the process of the episode."""
        if self._process is not None:
            self._process.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        if self._process is None:
            raise RuntimeError("reset comes first")
        try:
            return self._process.ask(**request)
        except RuntimeError as error:
            user = self._user if isinstance(self._user, dict) else {}
            raise RuntimeError(without_key(str(error), user)) from None

    def _problem(self, call: ToolCall, position: int) -> str | None:
        names = [tool.name for tool in self.tools]
        if call.name not in names:
            return f"no tool {call.name[:60]!r}: use one of {', '.join(names)}"
        if call.arguments is None:
            return f"the arguments of {call.name} are not a JSON object"
        return f"no more than {MOST_CALLS} calls in one message" if position >= MOST_CALLS else None


def _message(heard: dict[str, Any]) -> Message:
    calls: Sequence[Any] = heard.get("tool_calls") or ()
    return Message(
        role=heard["role"],
        content=heard["content"],
        tool_calls=tuple(
            ToolCall(id=call["id"], name=call["function"]["name"], arguments=json.loads(call["function"]["arguments"]))
            for call in calls
        ),
        tool_call_id=heard.get("tool_call_id"),
    )
