"""Claims: a tool's answer may be JSON or text, and is judged as what fits its schema."""

import pytest
from jsonschema import Draft202012Validator

from trace_jax.environments.results import result_fits

ORDER = {"anyOf": [{"type": "object", "required": ["status"]}, {"type": "string"}]}


@pytest.mark.parametrize(
    "schema, content, fits",
    [
        (ORDER, '{"status": "sent"}', True),
        (ORDER, "Error: no such order", True),
        (ORDER, "[1]", True),  # a text that happens to be JSON
        ({"type": "object"}, "[1]", False),
        ({"type": "object"}, "Error: no such order", False),
        ({"type": "string"}, "41", True),
        ({"type": "number"}, "41", True),
        ({"type": "number"}, None, False),
        ({}, "[" * 100_000, True),
    ],
)
def test_answers(schema, content, fits) -> None:
    assert result_fits(Draft202012Validator(schema), content) is fits
