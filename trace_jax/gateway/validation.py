"""Pydantic's errors in the words that a client gets: the place, what stands there, and what should."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trace_jax.errors import UserError


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
    said = details["msg"].replace("Input should", "it should").replace("String should", "it should")
    return f"{place} is {quoted(details['input'])}: {said.replace('List should', 'it should')}"
