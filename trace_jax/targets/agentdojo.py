"""AgentDojo's user tasks as a target, without attacks (MIT).

pip install agentdojo==0.1.35
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from trace_jax.contract.trajectory import Split, Tool
from trace_jax.errors import UserError
from trace_jax.targets.agentdojo_episode import SUITES, AgentDojoEpisode, load_suite, tools_of
from trace_jax.targets.package import BenchmarkPackage

PACKAGE = BenchmarkPackage(
    target="agentdojo",
    distribution="agentdojo",
    version="0.1.35",
    install="pip install agentdojo==0.1.35",
    sha256="4d06c19be7de0c1abaf8b7cbcffadc3513ecfd3b92f8bd523611cda109f1e53f",
)
# User tasks that are put together from one another, or that ask for the same in other words.
RELATED = {
    "slack": ((0, 2, 17), (1, 5, 8, 9, 10, 18, 19), (15, 16, 20)),
    "workspace": (
        (1, 4, 6, 13, 16, 19, 20, 22, 23, 39),
        (5, 11),
        (9, 12, 21),
        (27, 35, 38),
        (30, 31, 32, 36, 37),
    ),
}
_PASSED_IDLY = tuple(f"banking/user_task_{number}" for number in (5, 6, 8, 9, 10))


class AgentDojo:
    """Tasks ``SUITE/user_task_N`` of the given ``suites``: banking 16, slack 21, travel 20, workspace 40.

    Within a suite, related tasks are in one split: the largest group first, then by the lowest number, each group goes
    to the split that has fewer tasks so far (train if both have as many). The tasks of a split take the suites in turn.
    """

    name = "agentdojo"
    quick = True  # no step waits for anything

    def __init__(self, suites: Sequence[str] = SUITES) -> None:
        unknown = [suite for suite in suites if suite not in SUITES]
        if unknown or isinstance(suites, str) or not suites:
            raise UserError(f"target 'agentdojo': suites {suites!r}: give a list of some of {', '.join(SUITES)}")
        PACKAGE.require()
        self.version = PACKAGE.checked_version("agentdojo", ("data", "default_suites"))
        self._suites = tuple(dict.fromkeys(suites))

    @cached_property
    def results(self) -> Mapping[str, dict[str, Any]]:
        """The benchmark writes results as YAML, which some of them read as JSON too, and errors as text."""
        return {tool.name: {} for tool in self._tools}

    def tasks(self, split: Split) -> tuple[str, ...]:
        """Ids of a split."""
        found = [(number, suite) for suite in self._suites for number in _numbers(suite)[split]]
        return tuple(f"{suite}/user_task_{number}" for number, suite in sorted(found))

    def do_nothing(self, split: Split) -> tuple[str, ...]:
        """Tasks of a split that an agent passes which does and says nothing."""
        return tuple(task for task in self.tasks(split) if task in _PASSED_IDLY)

    def environment(self, split: Split) -> AgentDojoEpisode:
        """An environment over the tasks of both splits."""
        return AgentDojoEpisode(self._tools)

    @cached_property
    def _tools(self) -> tuple[Tool, ...]:
        tools = {tool.name: tool for suite in self._suites for tool in tools_of(suite)}
        return tuple(tools.values())


def _numbers(suite: str) -> dict[Split, list[int]]:
    """The numbers of a suite's tasks by split."""
    related = RELATED.get(suite, ())
    grouped = {number for group in related for number in group}
    numbers = sorted(int(id.removeprefix("user_task_")) for id in load_suite(suite).user_tasks)
    groups = [*related, *((number,) for number in numbers if number not in grouped)]
    splits: dict[Split, list[int]] = {"train": [], "held_out": []}
    for group in sorted(groups, key=lambda group: (-len(group), group)):
        splits["train" if len(splits["train"]) <= len(splits["held_out"]) else "held_out"] += group
    return splits
