"""A pydantic model as the form of an answer: how an endpoint is told of it, and how a file knows it again."""

import json
from functools import cache
from typing import Any

from pydantic import BaseModel


def response_format(form: type[BaseModel]) -> dict[str, Any]:
    """``response_format`` of a request: a JSON Schema in which every property is required, and no other is allowed."""
    return {"type": "json_schema", "json_schema": {"name": form.__name__, "schema": _strict(form), "strict": True}}


def schema_text(form: type[BaseModel]) -> str:
    """The JSON Schema of ``form`` for a prompt."""
    return json.dumps(schema(form), ensure_ascii=False)


@cache
def schema(form: type[BaseModel]) -> Any:
    """The JSON Schema of ``form``, without what versions of pydantic write differently: it is part of a call's key."""
    return _plain(form.model_json_schema())


@cache
def _strict(form: type[BaseModel]) -> Any:
    import openai  # takes a second

    return openai.pydantic_function_tool(form)["function"]["parameters"]


def _plain(found: Any) -> Any:
    if isinstance(found, list):
        return [_plain(value) for value in found]
    if not isinstance(found, dict):
        return found
    return {name: _plain(value) for name, value in found.items() if not _varies(name, value)}


def _varies(name: str, value: Any) -> bool:
    return (name == "title" and isinstance(value, str)) or (name == "additionalProperties" and value is True)
