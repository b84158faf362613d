"""Part of a stand-in of ToolSandbox: see README.md."""

import datetime
import os
import time
from uuid import uuid4

from tool_sandbox.common.execution_context import RoleType, get_current_context
from tool_sandbox.tools.rapid_api_search_tools import search_weather


def set_wifi_status(on: bool):
    """Turn wifi on or off."""
    get_current_context().world["wifi"] = on


def add_reminder(content: str):
    """Add a reminder."""
    made = {"id": str(uuid4()), "content": content, "created": datetime.datetime.now().timestamp()}
    get_current_context().world["reminders"].append(made)
    return made["id"]


def get_current_timestamp():
    """Get the current POSIX timestamp."""
    return datetime.datetime.now().timestamp()


def die():
    """End the process."""
    os._exit(3)


def hang():
    """Take a minute."""
    time.sleep(60)


def end_conversation():
    """Finish the conversation."""
    get_current_context().messages[-1].conversation_active = False


end_conversation.of = RoleType.USER
_ALL = (set_wifi_status, add_reminder, get_current_timestamp, die, hang, search_weather, end_conversation)
TOOLS = {tool.__name__: tool for tool in _ALL}
