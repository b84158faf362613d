"""What the template ``design`` is rendered with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trace_jax.contract.environment import Attempt
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.designer import Brief
from trace_jax.synthesis.examples import shortened
from trace_jax.synthesis.gates import CHANCE, TRIVIAL
from trace_jax.synthesis.llm.form import without_tools
from trace_jax.synthesis.llm.module_check import IMPORTS, MOST_CHARACTERS

_POLICY, _SCHEMA, _FEEDBACK = 12_000, 4_000, 3_000  # most characters


def prompt_values(brief: Brief, attempts: Sequence[Attempt], window: Window) -> dict[str, Any]:
    """The values for a brief, after ``attempts``. What is not ours is a text, which the template delimits."""
    examples = brief.examples
    return {
        "capability": brief.capability.name,
        "description": brief.capability.description,
        "policy": shortened(examples.policy, _POLICY),
        "tools": [_described(tool.offered(), brief.results, examples.results) for tool in brief.tools],
        "failed": examples.failed,
        "passed": examples.passed,
        "attempts": [_told(attempt) for attempt in attempts],
        "last_source": _last_source(attempts),
        "last_episode": attempts[-1].episode if attempts else "",
        "window": window,
        "trivial": TRIVIAL,
        "chance": CHANCE,
        "imports": sorted(IMPORTS),
        "most_characters": MOST_CHARACTERS,
    }


def _last_source(attempts: Sequence[Attempt]) -> str:
    designs = [attempt.design for attempt in attempts if attempt.design is not None]
    return without_tools(designs[-1].source or "") if designs else ""


def _described(
    tool: dict[str, Any], schemas: Mapping[str, dict[str, Any]], examples: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    schema = schemas.get(tool["name"])
    return {
        "text": json.dumps(tool, ensure_ascii=False),
        "result": "" if schema is None else shortened(json.dumps(schema, ensure_ascii=False), _SCHEMA),
        "examples": list(examples.get(tool["name"], ())),
    }


def _told(attempt: Attempt) -> dict[str, Any]:
    return {
        "round": attempt.round + 1,
        "verdict": attempt.verdict,
        "parameters": "" if attempt.design is None else json.dumps(attempt.design.parameters),
        "feedback": shortened(attempt.feedback, _FEEDBACK),
    }
