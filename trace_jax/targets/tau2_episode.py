"""One episode of τ²-bench: the benchmark's orchestrator, driven from outside. Importing it takes half a minute."""

from collections.abc import Iterator, Mapping
from typing import Any

from tau2.agent.base import is_valid_agent_history_message
from tau2.config import DEFAULT_MAX_ERRORS, DEFAULT_MAX_STEPS
from tau2.data_model import message as package
from tau2.data_model.simulation import TerminationReason
from tau2.orchestrator.orchestrator import Orchestrator, Role

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.errors import UserError
from trace_jax.targets.tau2_domain import Domain
from trace_jax.targets.tau2_grade import graded, user_usage

__all__ = ["Domain", "Tau2Episode"]

_MALFORMED = "arguments that are not a JSON object"


class Tau2Episode:
    """An episode of a domain. It ends as the benchmark ends it: by user or agent, at 200 steps, or after 10 errors.

    The user's own calls (telecom) are not seen by the agent. An evaluation that fails raises, as does a user model.
    """

    def __init__(self, name: str, domain: Domain, user: str | Mapping[str, Any] | None) -> None:
        self.name, self.tools = name, domain.tools
        self._domain, self._user = domain, user
        self._run: Any = None

    @property
    def extra(self) -> dict[str, Any]:
        """The answers and tokens of the user's model so far."""
        return {} if self._run is None else user_usage(self._run.trajectory)

    def reset(self, task: int | str) -> Observation:
        """The policy, and the conversation up to the agent's first turn. Raises UserError for an unknown task."""
        if task not in self._domain.tasks:
            raise UserError(f"target {self.name}: no task {task!r}: its first is {next(iter(self._domain.tasks))!r}")
        self._task = self._domain.tasks[str(task)]
        environment = self._domain.environment()
        self._agent = self._domain.agent(environment, self._task)
        self._run = Orchestrator(
            domain=self._domain.name,
            agent=self._agent,
            user=self._domain.user(environment, self._task, self._user),
            environment=environment,
            task=self._task,
            max_steps=DEFAULT_MAX_STEPS,
            max_errors=DEFAULT_MAX_ERRORS,
            solo_mode=self._domain.solo,
        )
        self._shown = 0
        history = self._task.initial_state and self._task.initial_state.message_history
        self._begun = bool(history) or not self._domain.solo  # else the agent's first turn begins it
        if self._begun:
            self._run.initialize()
            self._advance()
        return Observation((Message(role="system", content=self._agent.system_prompt), *self._news()), self._run.done)

    def step(self, message: Message) -> Observation:
        """Answers the agent's message. One that is empty, or in solo mode has no call, ends the episode failed."""
        run = self._run
        if not message.tool_calls and not (message.content or "").strip():
            run.done, run.termination_reason = True, TerminationReason.AGENT_ERROR
            return Observation((), done=True)
        self._agent.said = self._said(message)
        if self._begun:
            run.step()
        else:
            self._begun = True
            run.initialize()
        self._advance()
        if run.termination_reason is TerminationReason.AGENT_STOP:
            return Observation(tuple(_last_answer(call, self._agent) for call in message.tool_calls), done=True)
        return Observation(tuple(m for m in self._news() if m.role != "assistant"), run.done)

    def grade(self) -> Outcome:
        """The benchmark's own grade: 0 unless user or agent finished the episode. Raises UserError if it has none."""
        reason = self._run.termination_reason or TerminationReason.MAX_STEPS
        return graded(self._domain, self._task, reason, self._run.trajectory)

    def _advance(self) -> None:
        """Lets user and environment act until it is the agent's turn, as the benchmark's ``Orchestrator.run`` does."""
        run = self._run
        self._limit()
        while not run.done and run.to_role != Role.AGENT:
            run.step()
            self._limit()

    def _limit(self) -> None:
        run = self._run
        if run.to_role == Role.ENV:
            return
        if run.step_count >= run.max_steps:
            run.done, run.termination_reason = True, TerminationReason.MAX_STEPS
        if run.num_errors >= run.max_errors:
            run.done, run.termination_reason = True, TerminationReason.TOO_MANY_ERRORS

    def _said(self, message: Message) -> package.AssistantMessage:
        calls = [_call(call) for call in message.tool_calls]
        text = None if calls and self._domain.solo else message.content  # in solo mode nobody reads it
        said = package.AssistantMessage(role="assistant", content=text, tool_calls=calls or None)
        stop = self._agent.STOP_FUNCTION_NAME if self._domain.solo else None  # malformed, it gets an error as any call
        stops = [call.arguments is not None for call in message.tool_calls if call.name == stop]
        return self._agent._check_if_stop_toolcall(said) if stops and all(stops) else said

    def _news(self) -> Iterator[Message]:
        """What was said since the last time, as far as the agent hears it."""
        news, self._shown = self._run.trajectory[self._shown :], len(self._run.trajectory)
        return (_heard(message) for message in news if is_valid_agent_history_message(message))


def _call(call: ToolCall) -> package.ToolCall:
    """The package's form of a call. Malformed arguments become one that no tool has, so that the tool refuses them."""
    arguments = {_MALFORMED: call.raw_arguments} if call.arguments is None else call.arguments
    return package.ToolCall(id=call.id, name=call.name, arguments=arguments)


def _heard(message: Any) -> Message:
    if isinstance(message, package.ToolMessage):
        return Message(role="tool", content=message.content, tool_call_id=message.id)
    calls = tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in message.tool_calls or ())
    return Message(role=message.role, content=message.content, tool_calls=calls)


def _last_answer(call: ToolCall, agent: Any) -> Message:
    stops = call.name == agent.STOP_FUNCTION_NAME
    content = agent.STOP_TOKEN if stops else f"Error: not carried out, because {agent.STOP_FUNCTION_NAME} was called"
    return Message(role="tool", content=content, tool_call_id=call.id)
