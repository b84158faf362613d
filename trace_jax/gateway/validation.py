"""Pydantic's errors in the words that a client gets: the place, what stands there, and what should."""

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trace_jax.errors import UserError

_OBJECT_TYPES = ("dict_type", "model_type", "model_attributes_type")  # pydantic's message would name our classes


class InvalidField(UserError):
    """A field of a request cannot be used. ``param`` is the field's name, as OpenAI's error shape has it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def invalid_field(error: ValidationError) -> InvalidField:
    """The first of pydantic's errors, as ``messages[0].role is 'robot': it should be 'system' or 'user'``."""
    details = error.errors(include_url=False)[0]
    return InvalidField(str(details["loc"][0]), " ".join(_sentence(details).split()))


def quoted(value: object) -> str:
    """Enough of what a client sent to find it by."""
    return repr(value)[:60]


def _sentence(details: ErrorDetails) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).removeprefix(".")
    if details["type"] == "value_error":
        return f"{place}: {details['ctx']['error']}"
    if details["type"] == "missing":
        return f"{place} is missing: send it"
    if details["type"] == "extra_forbidden":
        return f"{place} is no field that is known here: leave it out"
    if details["type"] in _OBJECT_TYPES:
        said = "it should be an object"
    elif details["type"] == "too_short":
        said = f"it should have at least {details['ctx']['min_length']} item"
    else:
        said = re.sub("^(Input|String|List) should", "it should", details["msg"])
    return f"{place} is {quoted(details['input'])}: {said}"
