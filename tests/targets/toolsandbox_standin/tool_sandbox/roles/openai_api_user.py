"""Part of a stand-in of ToolSandbox: see README.md. Its user says what the model's endpoint answers."""

from tool_sandbox.common.execution_context import RoleType
from tool_sandbox.common.message_conversion import Message
from tool_sandbox.roles.base_role import BaseRole


class OpenAIAPIUser(BaseRole):
    role_type = RoleType.USER
    model_name = ""

    def __init__(self):
        raise AssertionError("the adapter sets a client of its own")

    def respond(self, ending_index=None):
        roles = {RoleType.AGENT: "user", RoleType.USER: "assistant", RoleType.SYSTEM: "system"}
        messages = [
            {"role": roles[message.sender], "content": message.content}
            for message in self.filter_messages(self.get_messages())
        ]
        answer = self.openai_client.chat.completions.create(model=self.model_name, messages=messages)
        self.add_messages([Message(self.role_type, RoleType.AGENT, answer.choices[0].message.content)])
