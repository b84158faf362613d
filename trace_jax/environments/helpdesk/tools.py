"""The desk's nine tools: their JSON Schemas, and how each of them changes the database."""

import json
from collections.abc import Callable, Container
from typing import Any

from jsonschema import Draft202012Validator

from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.environments.helpdesk.database import KINDS, Database, Row

_TYPES = {
    "customer_id": {"type": "string", "description": "A customer, such as C17"},
    "order_id": {"type": "string", "description": "An order, such as O41"},
    "product_id": {"type": "string", "description": "A product, such as P23"},
    "city": {"type": "string", "description": "Name of a city"},
    "kind": {"type": "string", "enum": list(KINDS), "description": "Kind of product"},
    "amount": {"type": "integer", "minimum": 1, "description": "Amount in whole dollars"},
}


class ToolError(Exception):
    """A tool refused; the text is the error that the agent sees."""


def _row(table: dict[str, Row], key: str, what: str) -> Row:
    if key not in table:
        raise ToolError(f"no {what} {key}")
    return table[key]


def _writable(database: Database, order_id: str) -> Row:
    order = _row(database.orders, order_id, "order")
    if order["locked"]:
        raise ToolError(f"{order_id} is locked")
    return order


def _get_customer(database: Database, customer_id: str) -> Any:
    return {"city": _row(database.customers, customer_id, "customer")["city"]}


def _get_order(database: Database, order_id: str) -> Any:
    order = _row(database.orders, order_id, "order")
    if database.faults.get(order_id, 0) > 0:
        database.faults[order_id] -= 1
        raise ToolError("timeout, try again")
    return {"status": order["status"], "items": order["items"]}


def _search_products(database: Database, kind: str) -> Any:
    return [
        {"price": row["price"], "id": key, "stock": row["stock"]}
        for key, row in sorted(database.products.items(), key=lambda item: (item[1]["price"], item[0]))
        if row["kind"] == kind
    ]


def _cancel_order(database: Database, order_id: str) -> Any:
    _writable(database, order_id)["status"] = "cancelled"
    return {"ok": True}


def _refund(database: Database, order_id: str, amount: int) -> Any:
    _writable(database, order_id)["refunded"] += amount
    return {"ok": True}


def _resend_order(database: Database, order_id: str, city: str) -> Any:
    _writable(database, order_id)["sent_to"] = city
    return {"ok": True}


def _place_order(database: Database, customer_id: str, product_id: str) -> Any:
    customer = _row(database.customers, customer_id, "customer")
    product = _row(database.products, product_id, "product")
    if product["stock"] == 0:
        raise ToolError(f"{product_id} is out of stock")
    product["stock"] -= 1
    customer["bought"].append(product_id)
    return {"ok": True}


def _set_city(database: Database, customer_id: str, city: str) -> Any:
    _row(database.customers, customer_id, "customer")["city"] = city
    return {"ok": True}


def _unlock_order(database: Database, order_id: str) -> Any:
    _row(database.orders, order_id, "order")["locked"] = False
    return {"ok": True}


_TOOLS: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
    "get_customer": (_get_customer, "Look a customer up: the city on file.", ("customer_id",)),
    "get_order": (_get_order, "Look an order up: its status and the price of each item.", ("order_id",)),
    "search_products": (_search_products, "List products of a kind with price and stock, cheapest first.", ("kind",)),
    "cancel_order": (_cancel_order, "Cancel an order.", ("order_id",)),
    "refund": (_refund, "Refund an amount on an order.", ("order_id", "amount")),
    "resend_order": (_resend_order, "Send an order once more, to a city.", ("order_id", "city")),
    "place_order": (_place_order, "Order one piece of a product for a customer.", ("customer_id", "product_id")),
    "set_city": (_set_city, "Change the city on file of a customer.", ("customer_id", "city")),
    "unlock_order": (_unlock_order, "Unlock a locked order, so that it can be changed.", ("order_id",)),
}


def _schema(fields: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _TYPES[name] for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


TOOLS: tuple[Tool, ...] = tuple(
    Tool(name=name, description=description, parameters=_schema(fields))
    for name, (_, description, fields) in _TOOLS.items()
)
_VALIDATORS = {tool.name: Draft202012Validator(tool.parameters) for tool in TOOLS}


def execute(database: Database, call: ToolCall, offered: Container[str] = frozenset(_TOOLS)) -> Any:
    """The result of one call. Raises ToolError for any mistake of the agent."""
    if call.name not in offered:
        raise ToolError(f"no tool {call.name}")
    if call.arguments is None:
        raise ToolError("arguments are not a JSON object")
    for problem in _VALIDATORS[call.name].iter_errors(call.arguments):
        raise ToolError(problem.message)
    return _TOOLS[call.name][0](database, **call.arguments)


def tool_message(call: ToolCall, result: Any) -> Message:
    """The message that answers a call."""
    content = json.dumps(result, separators=(",", ":"))
    return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)


def error_message(call: ToolCall, error: ToolError) -> Message:
    """The message that answers a refused call, as a real tool server would answer."""
    return tool_message(call, {"error": str(error)})
