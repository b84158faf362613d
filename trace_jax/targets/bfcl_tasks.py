"""The multi-turn tasks of BFCL v4, read from the files of the package ``bfcl_eval``."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from trace_jax.contract.trajectory import Tool

CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
CLASSES = (
    "GorillaFileSystem",
    "MathAPI",
    "MessageAPI",
    "TwitterAPI",
    "TicketAPI",
    "TradingBot",
    "TravelAPI",
    "VehicleControlAPI",
)
FILES = (
    *(f"data/BFCL_v4_multi_turn_{category}.json" for category in CATEGORIES),
    *(f"data/possible_answer/BFCL_v4_multi_turn_{category}.json" for category in CATEGORIES),
    "data/multi_turn_func_doc",
)


@dataclass(frozen=True)
class GoldCall:
    """A call of the benchmark's solution."""

    name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True)
class BfclTask:
    """``users`` holds one message a turn, ``gold`` the solution's calls in each turn. Nothing may change a task.

    ``tools`` are offered from the start. Those that the category miss_func holds back stand in a later user message.
    """

    id: str
    users: tuple[str, ...]
    gold: tuple[tuple[GoldCall, ...], ...]
    tools: tuple[Tool, ...]
    classes: tuple[str, ...]
    configuration: Mapping[str, Any]
    long_context: bool


@cache
def read_task(id: str) -> BfclTask:
    """The task called ``id``, for instance multi_turn_base_0. Raises ValueError if there is none."""
    category = id.removeprefix("multi_turn_").rpartition("_")[0]
    entries = _entries(category) if category in CATEGORIES else {}
    if id not in entries:
        raise ValueError(f"no task {id!r}: tasks are multi_turn_CATEGORY_N, CATEGORY one of {', '.join(CATEGORIES)}")
    entry, answer = entries[id]
    held_back = entry.get("missed_function", {})
    late = {name for names in held_back.values() for name in names}
    tools = {tool.name: tool for name in entry["involved_classes"] for tool in tools_of(name)}
    users = []
    for turn, messages in enumerate(entry["question"]):
        shown = [tools[name].offered() for name in held_back.get(str(turn), ())]
        users.append(_announcement(shown) if shown else messages[0]["content"])
    return BfclTask(
        id=id,
        users=tuple(users),
        gold=tuple(tuple(map(_gold_call, turn)) for turn in answer["ground_truth"]),
        tools=tuple(tool for name, tool in tools.items() if name not in late),
        classes=tuple(entry["involved_classes"]),
        configuration=entry["initial_config"],
        long_context=category == "long_context",
    )


@cache
def tools_of(class_name: str) -> tuple[Tool, ...]:
    """The tools of a back-end class. As for most models of the benchmark, the description holds the result's schema."""
    return tuple(
        Tool(
            name=function["name"],
            description=f"{function['description']} The response field has the following schema: "
            f"{json.dumps(function['response'])}",
            parameters=json_schema(function["parameters"]),
        )
        for function in functions_of(class_name)
    )


@cache
def functions_of(class_name: str) -> tuple[dict[str, Any], ...]:
    """The benchmark's own description of a class's functions."""
    mapping = import_module("bfcl_eval.constants.executable_backend_config").MULTI_TURN_FUNC_DOC_FILE_MAPPING
    return tuple(_lines(f"multi_turn_func_doc/{mapping[class_name]}"))


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` with the types of JSON Schema in place of the benchmark's ("dict", "float")."""
    types = import_module("bfcl_eval.constants.type_mappings").GORILLA_TO_OPENAPI
    found = {**schema, "type": types[schema["type"]]}
    if "properties" in found:
        found["properties"] = {name: json_schema(inner) for name, inner in found["properties"].items()}
    if "items" in found:
        found["items"] = json_schema(found["items"])
    return found


def _announcement(functions: list[dict[str, Any]]) -> str:
    """The user message that brings functions, in the benchmark's words."""
    prompts = import_module("bfcl_eval.constants.default_prompts")
    text: str = prompts.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_PROMPTING
    return text.format(functions=json.dumps(functions))


def _gold_call(text: str) -> GoldCall:
    """``f(1, name='x')`` as a call. Its arguments are literals; nothing is evaluated."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name), text
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    return GoldCall(call.func.id, tuple(map(ast.literal_eval, call.args)), keywords)


@cache
def _entries(category: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    name = f"BFCL_v4_multi_turn_{category}.json"
    pairs = zip(_lines(name), _lines(f"possible_answer/{name}"), strict=True)
    return {entry["id"]: (entry, answer) for entry, answer in pairs}


def _lines(path: str) -> list[dict[str, Any]]:
    text = files("bfcl_eval").joinpath("data", path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]
