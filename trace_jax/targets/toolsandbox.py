"""ToolSandbox as a target: a phone's tools, played from the user's own checkout (Apple's licence, not on PyPI).

    load_target("toolsandbox", {"path": "/path/to/ToolSandbox", "user": {"url": "http://HOST/v1", "model": "NAME"}})

The similarity to the scenario's milestones, 0 if a minefield was entered, is the reward.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.protocol import Environment
from trace_jax.errors import UserError
from trace_jax.targets.common import check_user_model
from trace_jax.targets.toolsandbox_client import SandboxProcess
from trace_jax.targets.toolsandbox_episode import ToolSandboxEpisode

INSTALL = (
    "git clone https://github.com/apple/ToolSandbox, then in an environment of its own pip install -e ToolSandbox "
    '"httpx<0.28", and target.python set to its Python (3.11 or 3.12)'
)
PAPER = "NO_DISTRACTION_TOOLS"  # the category of the 129 scenarios that the paper plays


class ToolSandbox:
    """The scenarios of a category, by name.

    ``path`` is the checkout. ``user`` is a language model, as ``{"url": …, "model": …}`` and optionally
    ``api_key_variable``, or a list of what the user says in turn before it ends the conversation.
    ``offline`` leaves out the scenarios whose tools need the network. A scenario whose name continues that of another
    is a variant of it. Variants stay together, and the groups of them go to train and held out in turn.
    """

    name = "toolsandbox"

    def __init__(
        self, path: str, user: Mapping[str, str] | Sequence[str], category: str = PAPER, offline: bool = False
    ) -> None:
        if not (Path(path) / "tool_sandbox" / "scenarios").is_dir():
            raise UserError(f"target 'toolsandbox': {path} is no checkout of ToolSandbox: {INSTALL}")
        if isinstance(user, Mapping):
            check_user_model(self.name, user)
        elif isinstance(user, str):
            raise UserError(f"target 'toolsandbox': user {user!r}: give {{'url': …, 'model': …}}, or a list of texts")
        self._path, self._category, self._offline = path, category, offline
        self._user: dict[str, str] | list[str] = dict(user) if isinstance(user, Mapping) else list(user)

    @cached_property
    def version(self) -> str:
        """The SHA-256 of the checkout's Python files, in the order of their paths."""
        digest = hashlib.sha256()
        for file in sorted((Path(self._path) / "tool_sandbox").rglob("*.py")):
            digest.update(file.read_bytes())
        return f"ToolSandbox sha256:{digest.hexdigest()}"

    @property
    def results(self) -> Mapping[str, dict[str, Any]]:
        """Every tool answers with the text of a Python value, or of an error."""
        return {tool["function"]["name"]: {} for tool in self._described["tools"]}

    def tasks(self, split: Split) -> tuple[str, ...]:
        """Names of the scenarios of a split."""
        groups = _groups(self._names)
        return tuple(name for group in groups[0 if split == "train" else 1 :: 2] for name in group)

    def environment(self, split: Split) -> Environment:
        """An environment over the scenarios of the category."""
        return self._environment(self._user)

    def do_nothing(self, split: Split) -> tuple[str, ...]:
        """Scenarios of a split that are passed by an agent that says it cannot help. Some seconds a scenario.

        The user ends the conversation at once: no language model is asked.
        """
        environment, passed = self._environment([]), []
        for name in self.tasks(split):
            environment.reset(name)
            environment.step(Message(role="assistant", content="I am sorry, but I cannot assist with that."))
            if environment.grade().components["perfect"]:
                passed.append(name)
        return tuple(passed)

    def _environment(self, user: dict[str, str] | list[str]) -> ToolSandboxEpisode:
        tools = tuple(Tool(**tool["function"]) for tool in self._described["tools"])
        return ToolSandboxEpisode(self._path, user, tools, frozenset(self._names))

    @cached_property
    def _described(self) -> dict[str, Any]:
        return SandboxProcess(self._path).ask(do="describe")

    @cached_property
    def _names(self) -> tuple[str, ...]:
        scenarios = self._described["scenarios"]
        known = sorted({category for scenario in scenarios.values() for category in scenario["categories"]})
        if self._category not in known:
            raise UserError(
                f"target 'toolsandbox': no category {self._category!r}: the checkout has {', '.join(known)}"
            )
        return tuple(
            sorted(
                name
                for name, scenario in scenarios.items()
                if self._category in scenario["categories"] and not (self._offline and scenario["network"])
            )
        )


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Sorted names, each in the group of the shortest name that it continues."""
    groups: list[list[str]] = []
    for name in names:
        if groups and name.startswith(f"{groups[-1][0]}_"):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups
