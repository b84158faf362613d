"""BFCL v4 multi-turn as a target (Berkeley Function Calling Leaderboard, Apache-2.0).

    pip install --no-deps bfcl-eval==2026.3.23 mpmath

It pins old versions of packages that its multi-turn part does not need, hence ``--no-deps``.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from trace_jax.contract.trajectory import Split
from trace_jax.errors import UserError
from trace_jax.targets.bfcl_episode import BfclEpisode
from trace_jax.targets.bfcl_tasks import CATEGORIES, CLASSES, FILES, functions_of, json_schema, tools_of
from trace_jax.targets.package import BenchmarkPackage

PACKAGE = BenchmarkPackage(
    target="bfcl",
    distribution="bfcl-eval",
    version="2026.3.23",
    install="pip install --no-deps bfcl-eval==2026.3.23 mpmath",
    sha256="5641e074b12f507f93c0845638b1fa724452ff54b1ca7f41691946c5e9835034",
)
_TASKS = 200  # in each category
_FAILURE = ({"type": "string"}, {"type": "object", "required": ["error"]})  # besides what the benchmark documents
_DOCUMENTED_WRONGLY = ("get_stock_info", "send_message")


class Bfcl:
    """Tasks ``multi_turn_CATEGORY_N`` of the given ``categories``; 200 each.

    Task N of a category is a variant of task N of the others. All four are in one split: train for an even N, held_out
    for an odd one. The tasks of a split take the categories in turn, and the benchmark's domains (about 50 tasks each).
    """

    name = "bfcl"
    quick = True  # no step waits for anything

    def __init__(self, categories: Sequence[str] = CATEGORIES) -> None:
        unknown = [category for category in categories if category not in CATEGORIES]
        if unknown or isinstance(categories, str) or not categories:
            raise UserError(f"target 'bfcl': categories {categories!r}: give a list of some of {', '.join(CATEGORIES)}")
        PACKAGE.require()
        self.version = PACKAGE.checked_version("bfcl_eval", FILES)
        self._categories = tuple(dict.fromkeys(categories))

    @cached_property
    def results(self) -> Mapping[str, dict[str, Any]]:
        """What the benchmark documents for each function, or a failure. Text that is no JSON counts as a string."""
        functions = (function for name in CLASSES for function in functions_of(name))
        schemas = {function["name"]: json_schema(function["response"]) for function in functions}
        schemas.update({name: {"type": "object"} for name in _DOCUMENTED_WRONGLY})
        return {name: {"anyOf": [schema, *_FAILURE]} for name, schema in schemas.items()}

    def tasks(self, split: Split) -> tuple[str, ...]:
        """Ids of a split."""
        first = 0 if split == "train" else 1
        numbers = sorted(range(first, _TASKS, 2), key=lambda number: (number % 50, number))
        return tuple(f"multi_turn_{category}_{number}" for number in numbers for category in self._categories)

    def do_nothing(self, split: Split) -> tuple[str, ...]:
        """Tasks of a split that an agent passes which does and says nothing: none."""
        return ()

    def environment(self, split: Split) -> BfclEpisode:
        """An environment over the tasks of both splits."""
        return BfclEpisode(tuple(tool for name in CLASSES for tool in tools_of(name)))
