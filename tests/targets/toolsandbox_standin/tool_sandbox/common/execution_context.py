"""Part of a stand-in of ToolSandbox: see README.md. The world is a dict, and the messages are a list."""

import code
from enum import StrEnum
from importlib import import_module


class RoleType(StrEnum):
    SYSTEM = "SYSTEM"
    USER = "USER"
    AGENT = "AGENT"
    EXECUTION_ENVIRONMENT = "EXECUTION_ENVIRONMENT"


class ScenarioCategories(StrEnum):
    NO_DISTRACTION_TOOLS = "NO_DISTRACTION_TOOLS"
    ALL_TOOLS_AVAILABLE = "ALL_TOOLS_AVAILABLE"


class ExecutionContext:
    def __init__(self, tool_allow_list=None):
        self.messages = []
        self.world = {"wifi": True, "reminders": []}
        self.tool_allow_list = tool_allow_list
        self.interactive_console = code.InteractiveConsole()

    @property
    def max_sandbox_message_index(self):
        return len(self.messages) - 1

    def get_execution_facing_tool_name(self, name):
        return name

    def get_available_tools(self):
        tools = import_module("tool_sandbox.tools.phone").TOOLS
        return {n: tool for n, tool in tools.items() if self.tool_allow_list is None or n in self.tool_allow_list}


_current = None  # global, as the benchmark's is


def get_current_context():
    return _current


def set_current_context(context):
    global _current
    _current = context
