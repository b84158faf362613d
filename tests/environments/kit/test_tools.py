"""Claims: type hints and docstrings of tool methods become schemas that hold for calls and answers."""

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from trace_jax.contract.trajectory import ToolCall
from trace_jax.environments import kit
from trace_jax.environments.calls import call_error
from trace_jax.environments.kit.answers import answer, run_call
from trace_jax.errors import UserError


@dataclass
class Room:
    title: str
    beds: int = 2


@dataclass
class Hotel:
    rooms: dict[str, Room] = field(default_factory=lambda: {"R1": Room("sea"), "R2": Room("hill", 1)})
    nights: dict[str, list[date]] = field(default_factory=dict)

    @kit.tool(reads=("rooms",))
    def find(
        self, beds: Annotated[int, Field(ge=1, description="How many beds")], view: Literal["sea", "hill"] = "sea"
    ) -> list[Room]:
        """Find rooms.

        The cheapest first.

        Args:
            view: What is seen
                from the window.
        """
        return [room for room in self.rooms.values() if room.beds >= beds and room.title == view]

    @kit.tool(writes=("nights",))
    def book(self, room: str, night: date, title: str | None = None) -> dict[str, Any] | None:
        """Book a room for a night."""
        kit.look_up(self.rooms, room, "room")
        self.nights.setdefault(room, []).append(night)
        return {"default": {"title": title}} if title else None

    def internal(self) -> None:
        """Not a tool."""


def ask(name: str, state: Hotel | None = None, **arguments: Any) -> Any:
    made = ToolCall(id="c", name=name, arguments=arguments)
    message = answer(Hotel() if state is None else state, made)
    assert (message.role, message.tool_call_id, message.name) == ("tool", "c", name)
    return json.loads(message.content or "")


def test_hints_and_docstring_become_the_tool():
    find, book = kit.tools(Hotel)
    assert (find.name, find.description) == ("find", "Find rooms. The cheapest first.")
    assert find.parameters == {
        "type": "object",
        "properties": {
            "beds": {"type": "integer", "minimum": 1, "description": "How many beds"},
            "view": {
                "type": "string",
                "enum": ["sea", "hill"],
                "default": "sea",
                "description": "What is seen from the window.",
            },
        },
        "required": ["beds"],
        "additionalProperties": False,
    }
    assert "title" in book.parameters["properties"] and "title" not in book.parameters
    assert (find.effect, book.effect) == ("read", "write")
    assert find.offered() == {"name": "find", "description": find.description, "parameters": find.parameters}
    assert kit.effects(Hotel) == {"find": kit.Effects(reads=("rooms",)), "book": kit.Effects(writes=("nights",))}


def test_answers_have_the_shape_of_results_and_nothing_else_has():
    schemas = kit.results(Hotel)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    find, book = (Draft202012Validator(schemas[name]) for name in ("find", "book"))
    assert ask("find", beds=1) == [{"title": "sea", "beds": 2}]
    for right in (ask("find", beds=1), ask("find", beds=9), ask("find", beds=0), ask("find", bed=1), []):
        assert find.is_valid(right)
    for wrong in ({"error": 1}, {"error": "x", "more": 1}, [{"title": "sea", "beds": 2, "x": 1}], [{"beds": 2}], None):
        assert not find.is_valid(wrong)
    assert book.is_valid(ask("book", room="R1", night="2026-01-02")) and book.is_valid(
        ask("book", room="R9", night="2026-01-02")
    )


def test_arguments_become_python_values_and_results_become_json():
    hotel = Hotel()
    assert ask("book", hotel, room="R1", night="2026-01-02", title="Ünal") == {"default": {"title": "Ünal"}}
    assert hotel.nights == {"R1": [date(2026, 1, 2)]}


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("fnd", {}, "no tool 'fnd': use one of find, book"),
        ("internal", {}, "no tool 'internal'"),
        ("find", {}, "arguments of find do not fit: $: 'beds' is a required property"),
        ("find", {"beds": "2"}, "arguments of find do not fit: $.beds: '2' should be a valid integer"),
        ("find", {"beds": True}, "$.beds: True should be a valid integer"),
        ("find", {"beds": 0}, "$.beds: 0 should be greater than or equal to 1"),
        ("find", {"beds": 1, "view": "moon"}, "$.view: 'moon' should be 'sea' or 'hill'"),
        ("find", {"beds": 1, "x": 1}, "$: 'x' was unexpected"),
        ("find", None, "arguments of find are not a JSON object: Expecting property name"),
        ("book", {"room": "R9", "night": "2026-01-02"}, "no room R9"),
        ("book", {"room": "R1", "night": "soon"}, "$.night: 'soon' should be a valid date"),
        ("book", {"room": "x" * 1000, "night": []}, "$.night"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_in_one_line(name, arguments, error):
    hotel = Hotel()
    made = ToolCall(id="c", name=name, arguments=arguments, raw_arguments=None if arguments else "{'")
    told = json.loads(answer(hotel, made).content or "")["error"]
    assert error in told and "\n" not in told and len(told) <= 300
    assert hotel == Hotel()
    with pytest.raises(kit.ToolError):
        run_call(hotel, made)


def test_what_the_schema_allows_is_what_the_kit_takes():
    """For arguments of JSON types alone, the published schema and the validation agree."""
    values = (None, True, 0, 1, 2.5, "1", "sea", [], [1], {})
    tools = kit.tools(Hotel)[:1]
    for beds in values:
        for view in values:
            made = ToolCall(id="c", name="find", arguments={"beds": beds, "view": view})
            allowed = call_error(made, tools) is None
            assert ("error" not in answer(Hotel(), made).content) == allowed, made


def test_a_tool_that_is_not_offered_is_unknown():
    made = ToolCall(id="c", name="book", arguments={"room": "R1", "night": "2026-01-02"})
    with pytest.raises(kit.ToolError, match="no tool 'book': use one of find"):
        run_call(Hotel(), made, ("find",))


def test_a_fault_of_the_tool_is_not_the_agents():
    @dataclass
    class Broken:
        @kit.tool
        def divide(self) -> int:
            """Divide."""
            return 1 // 0

        @kit.tool
        def lie(self) -> int:
            """Return what the hints deny."""
            return "one"  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        answer(Broken(), kit.call("divide"))
    with pytest.raises(Exception, match="Expected `int`"):
        answer(Broken(), kit.call("lie"))


def untyped(self, a):  # noqa: ANN001
    """Doc."""


def no_result(self, a: int):
    """Doc."""


def no_docstring(self, a: int) -> int:
    return a


def wrong_name(self, a: int) -> int:
    """Doc.

    Args:
        b: nothing
    """
    return a


def many(self, *a: int) -> int:
    """Doc."""
    return 0


def no_schema(self, a: int) -> object:
    """Doc."""


def not_json(self, a: "socket") -> int:  # noqa: F821
    """Doc."""
    return 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "parameter 'a' has no type: annotate it"),
        (no_result, "its result has no type"),
        (no_docstring, "it has no docstring"),
        (wrong_name, "its docstring describes 'b', which is no parameter: it has .'a'"),
        (many, "parameter .*a: int cannot be given by name"),
        (not_json, "name 'socket' is not defined in its annotations"),
    ],
)
def test_a_tool_that_cannot_be_described_is_refused_by_name(function, words):
    state = type("State", (), {"act": kit.tool(function)})
    with pytest.raises(UserError, match=f"tool {function.__qualname__}: {words}"):
        kit.tools(state)


def test_fields_that_a_tool_declares_exist():
    @dataclass
    class Flat:
        rooms: int = 0

        @kit.tool(writes=("room",))
        def tidy(self) -> None:
            """Tidy up."""

    with pytest.raises(UserError, match="tool tidy: it declares the field 'room': the state has .'rooms'"):
        kit.tools(Flat)


def test_a_state_without_tools_is_refused():
    with pytest.raises(UserError, match="state class Room has no tools"):
        kit.tools(Room)


def test_tools_of_base_classes_come_first_and_may_be_replaced():
    @dataclass
    class Motel(Hotel):
        @kit.tool
        def leave(self) -> None:
            """Leave."""

        @kit.tool
        def find(self) -> str:
            """Find anything."""
            return "here"

    assert [tool.name for tool in kit.tools(Motel)] == ["find", "book", "leave"]
    assert json.loads(answer(Motel(), kit.call("find")).content) == "here"
