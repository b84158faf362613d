"""Part of a stand-in of ToolSandbox: see README.md."""

import inspect

_TYPES = {str: "string", bool: "boolean", float: "number", int: "integer"}


def convert_to_openai_tools(name_to_tool):
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": tool.__doc__ or "",
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": _TYPES[parameter.annotation]}
                        for key, parameter in inspect.signature(tool).parameters.items()
                    },
                },
            },
        }
        for name, tool in name_to_tool.items()
    ]
