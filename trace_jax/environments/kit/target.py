"""A target made of an environment class."""

from collections.abc import Callable, Mapping
from typing import Any

from trace_jax.contract.trajectory import Split, Tool
from trace_jax.environments.kit.environment import Environment
from trace_jax.environments.kit.tools import Effects, effects, results
from trace_jax.errors import UserError

_FIRST: dict[Split, int] = {"train": 0, "held_out": 1_000_000}  # conversations may begin alike, so seeds have to differ


class Target:
    """``train`` and ``held_out`` tasks of the environments that ``make`` returns. No conversation is in two splits.

    Attributes:
        results: a JSON Schema of each tool's results.
        effects: what each tool declares that it reads and writes.
    """

    def __init__(self, make: Callable[[], Environment[Any]], *, train: int, held_out: int) -> None:
        for name, count in (("train", train), ("held_out", held_out)):
            if type(count) is not int or not 1 <= count <= _FIRST["held_out"]:
                raise UserError(f"target parameter {name} is {count!r}: give a number of tasks from 1 to 1,000,000")
        made = make()
        self.name = made.name
        self.tools: tuple[Tool, ...] = made.tools
        self.results: Mapping[str, dict[str, Any]] = results(made.state_type)
        self.effects: Mapping[str, Effects] = effects(made.state_type)
        self._make, self._counts = make, {"train": train, "held_out": held_out}

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split. No seed is in both."""
        first = _FIRST[split]
        return tuple(range(first, first + self._counts[split]))

    def environment(self, split: Split) -> Environment[Any]:
        """A new environment over the tasks of a split."""
        made = self._make()
        made.source = split
        return made
