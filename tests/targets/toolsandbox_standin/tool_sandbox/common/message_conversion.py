"""Part of a stand-in of ToolSandbox: see README.md."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

from tool_sandbox.common.execution_context import RoleType


@dataclass
class Message:
    sender: RoleType
    recipient: RoleType
    content: str
    conversation_active: bool | None = None
    openai_tool_call_id: str | None = None
    openai_function_name: str | None = None
    visible_to: list | None = None

    def __post_init__(self):
        if self.visible_to is None:
            self.visible_to = [self.sender, self.recipient]


def openai_tool_call_to_python_code(tool_call: SimpleNamespace, available_tool_names, execution_facing_tool_name):
    if tool_call.function.name not in available_tool_names:
        raise KeyError(tool_call.function.name)
    arguments = json.loads(tool_call.function.arguments)
    return (
        f"{tool_call.id}_parameters = {arguments}\n"
        f"{tool_call.id}_response = {execution_facing_tool_name}(**{tool_call.id}_parameters)\n"
        f"print(repr({tool_call.id}_response))"
    )


def to_openai_messages(messages):
    found = []
    for message in messages:
        if message.sender == RoleType.EXECUTION_ENVIRONMENT:
            found.append(
                {
                    "role": "tool",
                    "tool_call_id": message.openai_tool_call_id,
                    "name": message.openai_function_name,
                    "content": message.content,
                }
            )
        else:
            role = {RoleType.SYSTEM: "system", RoleType.USER: "user", RoleType.AGENT: "assistant"}[message.sender]
            found.append({"role": role, "content": message.content})
    return found, []
