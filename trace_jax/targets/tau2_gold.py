"""A user of τ²-bench who follows the task's solution, so that a known-good agent can be played without a model."""

from typing import Any

from tau2.data_model.message import AssistantMessage, ToolCall, UserMessage
from tau2.data_model.tasks import StructuredUserInstructions, Task
from tau2.environment.tool import Tool
from tau2.user.base import STOP
from tau2.user.user_simulator import UserSimulator


class GoldUser(UserSimulator):
    """States the task's reason for calling, then does what it is told, and hangs up when it is told nothing.

    It is told to do an action of the solution if the agent writes it out, as in ``toggle_data()``. What the task would
    have the user say in a longer conversation is never said.
    """

    def __init__(self, tools: list[Tool] | None, task: Task) -> None:
        super().__init__(tools=tools, instructions=str(task.user_scenario))
        criteria = task.evaluation_criteria
        actions = (criteria and criteria.actions) or []
        self._actions = {action.get_func_format(): action for action in actions if action.requestor == "user"}
        instructions = task.user_scenario.instructions
        structured = isinstance(instructions, StructuredUserInstructions)
        self._opening: str | None = instructions.reason_for_call if structured else instructions

    def generate_next_message(self, message: Any, state: Any) -> tuple[UserMessage, Any]:
        """The user's answer to what the agent said, or to the result of the user's own calls."""
        reply = self._reply(message)
        state.messages.append(reply)
        return reply, state

    def _reply(self, message: Any) -> UserMessage:
        if not isinstance(message, AssistantMessage):
            return UserMessage(role="user", content="I have done that.")
        if self._opening is not None:
            opening, self._opening = self._opening, None
            return UserMessage(role="user", content=opening)
        told = [action for written, action in self._actions.items() if written in (message.content or "")]
        calls = [
            ToolCall(id=action.action_id, name=action.name, arguments=action.arguments, requestor="user")
            for action in told
        ]
        return UserMessage(role="user", tool_calls=calls) if calls else UserMessage(role="user", content=STOP)
