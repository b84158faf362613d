"""A JSON Schema for the results of each of the desk's tools."""

from typing import Any

from trace_jax.environments.helpdesk.database import KINDS, STATUSES


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_error(result: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [result, _closed({"error": {"type": "string"}})]}


_AMOUNT = {"type": "integer", "minimum": 0}
_DONE = _closed({"ok": {"const": True}})
_ORDER = _closed(
    {
        "status": {"enum": [*STATUSES, "cancelled"]},
        "items": {"type": "object", "propertyNames": {"enum": list(KINDS)}, "additionalProperties": _AMOUNT},
    }
)
_PRODUCT = _closed({"id": {"type": "string"}, "price": _AMOUNT, "stock": _AMOUNT})

RESULTS: dict[str, dict[str, Any]] = {
    "get_customer": _or_error(_closed({"city": {"type": "string"}})),
    "get_order": _or_error(_ORDER),
    "search_products": _or_error({"type": "array", "items": _PRODUCT}),
    "cancel_order": _or_error(_DONE),
    "refund": _or_error(_DONE),
    "resend_order": _or_error(_DONE),
    "place_order": _or_error(_DONE),
    "set_city": _or_error(_DONE),
    "unlock_order": _or_error(_DONE),
}
