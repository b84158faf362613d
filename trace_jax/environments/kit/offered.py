"""Tools that are offered exactly as a target words them."""

import json
import re
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from trace_jax.contract.trajectory import Tool
from trace_jax.environments.kit.tools import state_tools
from trace_jax.errors import UserError

_FOLDED = re.compile(r"\s*\n\s*")
_TOOLS = TypeAdapter(tuple[Tool, ...])


def offered(text: str) -> tuple[Tool, ...]:
    """Tools from JSON: a list of ``{"name": …, "description": …, "parameters": JSON Schema}``.

    An environment with ``tools = kit.offered(…)`` shows these in place of what type hints and docstrings would give. A
    line break of ``text`` counts as a space, even within quotes, so that long descriptions can be folded. Raises
    UserError for anything else.
    """
    try:
        return _TOOLS.validate_python(json.loads(_FOLDED.sub(" ", text.strip())))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise UserError(f"kit.offered: no list of tools: {problem}: copy the target's tools as they are")


def check_offered(owner: str, tools: Sequence[Tool], state_type: type) -> None:
    """Raises UserError for a tool that the state does not have, or that takes other arguments there."""
    methods = state_tools(state_type)
    for tool in tools:
        if tool.name not in methods:
            raise UserError(
                f"environment {owner}: {state_type.__name__} has no tool {tool.name!r}: it has {[*methods]}"
            )
        own = methods[tool.name].tool.parameters
        for part in ("properties", "required"):
            wanted, found = (sorted(each.get(part, ())) for each in (tool.parameters, own))
            if wanted != found:
                raise UserError(
                    f"environment {owner}: tool {tool.name} is offered with {part} {wanted}, and its method has {found}"
                )
