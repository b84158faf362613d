"""Part of a stand-in of ToolSandbox: see README.md."""

from tool_sandbox.common.execution_context import RoleType, get_current_context


class BaseRole:
    role_type = None

    @staticmethod
    def get_messages(ending_index=None):
        messages = get_current_context().messages
        return list(messages if ending_index is None else messages[: ending_index + 1])

    @staticmethod
    def add_messages(messages):
        for message in messages:
            history = get_current_context().messages
            if message.conversation_active is None:
                message.conversation_active = history[-1].conversation_active if history else True
            history.append(message)

    @classmethod
    def filter_messages(cls, messages):
        return [message for message in messages if cls.role_type in message.visible_to]

    @classmethod
    def get_available_tools(cls):
        tools = get_current_context().get_available_tools()
        return {name: tool for name, tool in tools.items() if getattr(tool, "of", RoleType.AGENT) == cls.role_type}

    def respond(self, ending_index=None):
        raise NotImplementedError
