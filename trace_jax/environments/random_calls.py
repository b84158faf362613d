"""Tool calls at random: valid types, and words that the episode has shown."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from trace_jax.contract.trajectory import Tool, ToolCall

_WORDS = re.compile(r"\b[A-Z][A-Za-z]*\d*\b|\b\d{1,3}\b")


def random_call(rng: np.random.Generator, tools: tuple[Tool, ...], words: list[str]) -> ToolCall:
    """A call whose arguments have valid types.

    For a string, words that look like the example in the parameter's description (``such as C17``) come first.
    """
    tool = tools[rng.integers(len(tools))]
    properties = tool.parameters.get("properties", {})
    names: Iterable[str] = tool.parameters.get("required", ())
    arguments = {name: _value(rng, properties.get(name, {}), words) for name in names}
    return ToolCall(id=f"probe_{rng.integers(10**9)}", name=tool.name, arguments=arguments)


def words_in(text: str) -> list[str]:
    """Names, ids and numbers in ``text``, each once, in order."""
    return list(dict.fromkeys(_WORDS.findall(text)))


def _value(rng: np.random.Generator, schema: dict[str, Any], words: list[str]) -> Any:
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    match schema.get("type"):
        case "integer" | "number":
            least = int(schema.get("minimum", 0))
            return int(rng.integers(least, max(10, least + 1)))
        case "boolean":
            return bool(rng.integers(2))
        case "array":
            return [_value(rng, schema.get("items", {}), words)]
        case "object":
            return {}
    example = re.search(r"such as (\w+)", schema.get("description", ""))
    prefix = example.group(1).rstrip("0123456789") if example else ""
    fitting = [word for word in words if prefix and re.fullmatch(re.escape(prefix) + r"\d+", word)]
    options = fitting or [word for word in words if word.isalpha()] or words or ["x"]
    return options[rng.integers(len(options))]
