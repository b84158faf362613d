"""Results of ToolSandbox → trajectories.

They are a directory: ``result_summary.json`` with a row for each scenario, and the conversation of each in
``trajectories/NAME/conversation.json``. The reward is the row's similarity; an episode passes if it is 1.
"""

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from etils import epath

from trace_jax.analysis.importers.chat_messages import ChatMessage, message_of, rest_of
from trace_jax.analysis.importers.episodes import Entry, Fault, Shape, Source, read_each, reward_of, scrub, short
from trace_jax.contract.reading import read_json
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check, Policy, Trajectory
from trace_jax.errors import UserError

SUMMARY = "result_summary.json"
_REMEDY = f"give the directory of a ToolSandbox run, which holds {SUMMARY} and trajectories/"
_AGENT = re.compile(r"agent_(.+?)_user_")  # ToolSandbox names a directory agent_MODEL_user_MODEL_TIME
_PERFECT = 1.0


class _Row(Shape):
    name: str
    categories: list[str] = []
    exception_type: str | None = None
    similarity: Any = None
    milestone_similarity: Any = None
    minefield_similarity: Any = None
    milestone_mapping: dict[str, Any] | None = None


def load(path: PathLike, model: str) -> tuple[Trajectory, ...]:
    """Read a run. The agent is the one that the directory's name tells, else ``model``.

    A scenario that raised, whose conversation is missing, or that cannot be read is broken and says why (see
    ``read_each``). ToolSandbox itself counts a scenario that raised as a similarity of 0. Raises UserError where the
    run as a whole cannot be read.
    """
    directory = epath.Path(path)
    directory = directory.parent if directory.name == SUMMARY else directory
    summary = read_json(directory / SUMMARY, _REMEDY)
    rows = summary.get("per_scenario_results") if isinstance(summary, dict) else None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{os.fspath(directory / SUMMARY)}: per_scenario_results is {short(rows)}: {_REMEDY}")
    named = _AGENT.search(directory.name)
    policy = Policy(base=named.group(1) if named else model)
    source = Source(
        os.fspath(directory), "toolsandbox", policy,
        read=lambda raw: _trajectory(raw, policy),
        identify=lambda raw: raw["name"] if isinstance(raw.get("name"), str) else None,
    )  # fmt: skip
    return read_each(source, _entries(directory, rows))


def _entries(directory: epath.Path, rows: list[Any]) -> Iterator[Entry]:
    """Each row with its conversation under ``messages``."""
    for number, row in enumerate(rows):
        place = f"per_scenario_results.{number}"
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            yield Entry(place, row)
            continue
        file = directory / "trajectories" / row["name"] / "conversation.json"
        if file.parent.parent != directory / "trajectories" or row["name"] in ("", ".", ".."):
            yield Entry(place, row, Fault("the name is no name of a directory", short(row["name"])))
            continue
        try:
            yield Entry(place, {**row, "messages": read_json(file, "restore the file")})
        except UserError as error:
            raised = row.get("exception_type")
            fault = Fault(f"the scenario raised {raised}") if raised else Fault("it has no conversation", str(error))
            yield Entry(place, row, fault)


class _Scenario(_Row):
    messages: list[ChatMessage]


def _trajectory(raw: Any, policy: Policy) -> Trajectory:
    row = _Scenario.model_validate(raw)
    error = f"the scenario raised {row.exception_type}" if row.exception_type else None
    parts = {"milestones": row.milestone_similarity, "minefields": row.minefield_similarity}
    return Trajectory(
        id=row.name,
        target="toolsandbox",
        task=row.name,
        split="train",
        seed=0,
        trial=0,
        policy=policy,
        messages=tuple(message_of(message) for message in row.messages),
        reward=None if error else reward_of(row.similarity),
        components={} if error else {key: reward_of(value) for key, value in parts.items() if value is not None},
        checks=() if error else tuple(_checks(row)),
        termination="error" if error else "done",
        error=error,
        extra=scrub(
            {
                **{key: value for key, value in raw.items() if key not in ("name", "messages")},
                "messages": {str(i): rest for i, found in enumerate(raw["messages"]) if (rest := rest_of(found))},
            }
        ),
    )


def _checks(row: _Row) -> Iterator[Check]:
    """One check for each milestone: the pair that ToolSandbox notes is a message's number and its similarity."""
    for number, pair in (row.milestone_mapping or {}).items():
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int | float)):
            continue
        if abs(pair[1]) <= sys.float_info.max:  # JSON may hold an integer that no float does
            yield Check(name=f"milestone.{number}", passed=pair[1] == _PERFECT, detail=f"similarity {pair[1]:.3f}")
