"""How a target's user is played by a language model: ``{"url": "http://HOST/v1", "model": "NAME"}``.

The names are those of ``trace_jax.llm``'s settings. A key is never among them: it stays in its environment variable.
"""

import os
from collections.abc import Mapping
from typing import Any

from trace_jax.errors import UserError

_NO_KEY = "none"  # what a server without keys is sent: the clients want one


def check_user_model(target: str, user: Mapping[str, Any], *optional: str) -> None:
    """Raises UserError unless ``user`` has a ``url`` and a ``model``, and else only settings of ``optional``."""
    known = ("url", "model", "api_key_variable", *optional)
    strange = sorted(set(user) - set(known))
    if strange:
        raise UserError(
            f"target {target!r}: user has no setting {strange[0]!r}: it has {', '.join(known)}; "
            "a key belongs in the environment variable that api_key_variable names"
        )
    for name in ("url", "model"):
        if not isinstance(user.get(name), str):
            raise UserError(f"target {target!r}: user has no {name}: give {{'url': 'http://HOST/v1', 'model': 'NAME'}}")
    if "@" in user["url"]:
        raise UserError(f"target {target!r}: user.url holds credentials: a key belongs in an environment variable")


def user_key(user: Mapping[str, Any]) -> str:
    """The key of the user's model, from the environment; "none" if there is none."""
    return _key(user) or _NO_KEY


def without_key(text: str, user: Mapping[str, Any]) -> str:
    """``text``, which a server may have written, without the key of the user's model."""
    return text.replace(key, "…") if (key := _key(user)) else text


def _key(user: Mapping[str, Any]) -> str:
    return os.environ.get(user.get("api_key_variable", "OPENAI_API_KEY"), "")
