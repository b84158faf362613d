"""Names that begin with a library: ``openenv:URL`` and ``gymnasium:ID``."""

from collections.abc import Mapping
from typing import Any

_SCHEMES = {
    "openenv": ("trace_jax.environments.adapters.openenv:OpenEnv", "url"),
    "gymnasium": ("trace_jax.environments.adapters.gymnasium_text:GymnasiumText", "environment"),
}


def expand(name: str, parameters: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """``module:Class`` of a name with such a beginning, and the parameters with the rest. Other names stay."""
    scheme, _, rest = name.partition(":")
    if scheme not in _SCHEMES or not rest:
        return name, dict(parameters or {})
    path, parameter = _SCHEMES[scheme]
    return path, {**(parameters or {}), parameter: rest}
