"""The model names that clients use: the routed model, its base, and each adapter."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from trace_jax.errors import UserError
from trace_jax.gateway.errors import ApiError

BASE = "base"


class Models:
    """``name`` and every alias are routed. ``base`` and the adapters are not, with or without ``name:`` in front.

    Raises UserError for a name of two models.
    """

    def __init__(self, name: str, aliases: Sequence[str], adapters: Sequence[str]) -> None:
        self._adapters, self._routed, self._since = tuple(adapters), (name, *aliases), int(time.time())
        names = [*self._routed, BASE, *self._adapters]
        if twice := [each for each in names if names.count(each) > 1]:
            raise UserError(f"{twice[0]!r} names two models, of {', '.join(names)}: choose other --aliases")

    def resolve(self, model: str) -> Mapping[str, float] | None:
        """The adapter that a name stands for, with its weight (empty: the base), or None if the router decides.

        Raises ApiError (404) for an unknown name.
        """
        if model in self._routed:
            return None
        choice = model.removeprefix(f"{self._routed[0]}:")
        if choice == BASE:
            return {}
        if choice in self._adapters:
            return {choice: 1.0}
        raise ApiError(
            404,
            f"no model {model[:80]!r}; there are {', '.join((*self._routed, BASE, *self._adapters))}",
            param="model",
            code="model_not_found",
        )

    def card(self, name: str) -> dict[str, Any]:
        """OpenAI's record of one model. Raises ApiError (404)."""
        self.resolve(name)
        return {"id": name, "object": "model", "created": self._since, "owned_by": "trace-jax"}

    def cards(self) -> dict[str, Any]:
        """OpenAI's list of models."""
        return {"object": "list", "data": [self.card(name) for name in (*self._routed, BASE, *self._adapters)]}
