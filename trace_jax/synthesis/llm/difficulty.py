"""Difficulty before rewrites: a module that is too easy or too hard gets other settings of its knobs first."""

from collections.abc import Mapping, Sequence
from typing import Literal

from trace_jax.contract.environment import Verdict
from trace_jax.synthesis.llm.form import Knob, Setting

_STEP: Mapping[Verdict, Literal[1, -1]] = {"too easy": 1, "too hard": -1}


def next_setting(knobs: Sequence[Knob], tried: Mapping[Setting, Verdict], last: Setting) -> Setting | None:
    """The setting to try after ``last``, one step of one knob away; None if only another module can help.

    Of the knobs that can still move in the direction that the verdict wants, the one that has moved least is moved, and
    of equal ones the first. A setting is not tried twice. It is passed over as well if a tried one shows that it lies
    on the wrong side: what is at least as hard as a setting that was too hard is too hard.
    """
    step = _STEP.get(tried[last])
    if step is None:
        return None
    start = next(iter(tried))
    order = sorted(range(len(knobs)), key=lambda number: abs(last[number] - start[number]))
    for number in order:
        moved = list(last)
        moved[number] += step
        found = tuple(moved)
        if 0 <= found[number] < len(knobs[number].values) and found not in tried and not _settled(found, tried):
            return found
    return None


def _settled(setting: Setting, tried: Mapping[Setting, Verdict]) -> bool:
    """Whether a tried setting tells already that ``setting`` is too easy, or too hard."""
    return any(
        (verdict == "too easy" and _at_most(setting, other)) or (verdict == "too hard" and _at_most(other, setting))
        for other, verdict in tried.items()
    )


def _at_most(easier: Setting, harder: Setting) -> bool:
    return all(a <= b for a, b in zip(easier, harder, strict=True))
