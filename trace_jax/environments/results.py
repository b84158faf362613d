"""The results of tools against the schemas that a target declares for them."""

import json

from jsonschema import Draft202012Validator


def result_fits(validator: Draft202012Validator, content: str | None) -> bool:
    """Whether a tool's answer fits a schema: as the JSON value that it holds, or as the text that it is.

    An answer such as "Error: no such order" is no JSON. A faulty schema may raise anything.
    """
    text = content or ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return bool(validator.is_valid(text))
    return bool(validator.is_valid(value) or validator.is_valid(text))
