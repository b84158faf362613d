"""Part of a stand-in of ToolSandbox: see README.md. It runs code and answers with what the code printed."""

import io
from contextlib import redirect_stderr, redirect_stdout

from tool_sandbox.common.execution_context import RoleType, get_current_context
from tool_sandbox.common.message_conversion import Message
from tool_sandbox.roles.base_role import BaseRole


class ExecutionEnvironment(BaseRole):
    role_type = RoleType.EXECUTION_ENVIRONMENT

    def respond(self, ending_index=None):
        messages = self.get_messages(ending_index)
        first = len(messages)
        while first and messages[first - 1].recipient == self.role_type:
            first -= 1
        answers = [self._answer(message) for message in messages[first:]]
        self.add_messages([answer for answer in answers if answer is not None])

    def _answer(self, message):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            get_current_context().interactive_console.runcode(compile(message.content, "<call>", "exec"))
        if message.sender == RoleType.SYSTEM:
            return None
        lines = [*out.getvalue().splitlines(), *err.getvalue().splitlines()[-1:]]
        return Message(
            self.role_type,
            message.sender,
            "\n".join(lines),
            openai_tool_call_id=message.openai_tool_call_id,
            openai_function_name=message.openai_function_name,
        )
