"""All patterns of a sample of episodes."""

from collections.abc import Callable, Iterator, Sequence

from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.patterns.amounts import units, worked_out
from trace_jax.analysis.patterns.checks import failed_checks
from trace_jax.analysis.patterns.choices import choices
from trace_jax.analysis.patterns.order import errors, order
from trace_jax.analysis.patterns.records import conditions
from trace_jax.analysis.patterns.talk import asks_first, every_part
from trace_jax.contract.trajectory import Check

Findings = dict[str, tuple[Finding, ...]]

_BEHAVIOUR: tuple[Callable[[Episode], Iterator[tuple[str, Finding]]], ...] = (
    errors,
    order,
    choices,
    asks_first,
    every_part,
    worked_out,
    units,
)


def find_patterns(episodes: Sequence[Episode], checks: Sequence[Sequence[Check]]) -> list[Findings]:
    """By episode, every pattern that it gave occasion for, with all findings. ``checks``: those of each episode."""
    tables = []
    for episode, own, states in zip(episodes, checks, conditions(episodes), strict=True):
        table: Findings = {name: (found,) for name, found in states.items()}
        for find in _BEHAVIOUR:
            for name, found in find(episode):
                table[name] = (*table.get(name, ()), found)
        table.update({name: (found,) for name, found in failed_checks(own)})
        tables.append(table)
    return tables
