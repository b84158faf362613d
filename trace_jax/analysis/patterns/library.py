"""All patterns of a sample of episodes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.patterns.amounts import units, worked_out
from trace_jax.analysis.patterns.checks import failed_checks
from trace_jax.analysis.patterns.choices import choices
from trace_jax.analysis.patterns.joint import asked
from trace_jax.analysis.patterns.order import errors, looks_up, order
from trace_jax.analysis.patterns.records import conditions
from trace_jax.analysis.patterns.talk import asks_first, every_part
from trace_jax.contract.trajectory import Check

Findings = dict[str, tuple[Finding, ...]]

_BEHAVIOUR: tuple[Callable[[Episode], Iterator[tuple[str, Finding]]], ...] = (
    errors,
    order,
    looks_up,
    choices,
    asks_first,
    every_part,
    worked_out,
    units,
)


def find_patterns(episodes: Sequence[Episode], checks: Sequence[Sequence[Check]]) -> list[Findings]:
    """By episode, every pattern that it gave occasion for, with all findings. ``checks``: those of each episode."""
    tables = []
    for episode, own, states, said in zip(episodes, checks, conditions(episodes), asked(episodes), strict=True):
        table: Findings = said | {name: (found,) for name, found in states.items()}
        for name, found in chain(failed_checks(episode, own), *(find(episode) for find in _BEHAVIOUR)):
            table[name] = (*table.get(name, ()), found)
        tables.append(table)
    return tables
