"""Rendered documents against their schema."""

from typing import Any

from pydantic import BaseModel, ValidationError

from trace_jax.errors import UserError


def validate(model: type[BaseModel], document: dict[str, Any], what: str) -> None:
    """Raises UserError naming the first field of ``document`` that ``model`` refuses."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{what}: {where or 'document'}: {first['msg']}: change the configuration") from None
