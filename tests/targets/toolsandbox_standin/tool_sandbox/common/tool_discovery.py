"""Part of a stand-in of ToolSandbox: see README.md."""

from enum import Enum, auto


class ToolBackend(Enum):
    DEFAULT = auto()
