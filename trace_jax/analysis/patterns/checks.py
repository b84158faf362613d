"""meet_check_NAME: the named checks of the grader, alone and grouped by the parts of their names.

By convention a check is named ``kind.aspect`` (``cancel.confirmed``): the kind of request, and what was looked at. So
``meet_check_cancel`` groups all that was checked of cancellations, and ``meet_check_confirmed`` the same aspect of all
kinds of request. Identifiers and numbers in a name (``order_O12.status``, ``step 3``) are left out.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.patterns.names import CHECK, slug
from trace_jax.contract.trajectory import Check

_SEPARATOR = re.compile(r"[./:>]+")


@lru_cache(maxsize=8192)
def parts(name: str) -> tuple[str, ...]:
    """The parts of a check's name, as slugs: at ``.``, ``/`` and ``:``, or at ``_`` where it has none of them."""
    pieces = [piece for piece in _SEPARATOR.split(name) if piece.strip()]
    if len(pieces) == 1:
        first, _, rest = name.strip("_").partition("_")
        pieces = [first, rest] if rest else [name]
    return tuple(filter(None, (_without_numbers(piece) for piece in pieces))) or ("unnamed",)


def _without_numbers(piece: str) -> str:
    return "_".join(word for word in slug(piece).split("_") if not re.search(r"\d", word))


@lru_cache(maxsize=8192)
def full_name(name: str) -> str:
    """The pattern that stands for the checks of exactly this name."""
    return CHECK + "_".join(parts(name))


@lru_cache(maxsize=8192)
def groups(name: str) -> tuple[str, ...]:
    """The patterns of the kind and of the aspect that a check's name tells; none for a name of one part."""
    found = parts(name)
    return (CHECK + found[0], CHECK + found[-1]) if len(found) > 1 else ()


def failed_checks(checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """One finding for each pattern that the checks of an episode speak of; what a grader asserts is sure."""
    missed: dict[str, Check] = {}
    met: set[str] = set()
    for check in checks:
        for pattern in (full_name(check.name), *groups(check.name)):
            if check.passed:
                met.add(pattern)
            else:
                missed.setdefault(pattern, check)
    for pattern in sorted(met | set(missed)):
        check = missed.get(pattern)
        if check is None:
            yield pattern, present(1.0, "passed")
        else:
            yield pattern, lacking(1.0, f"{check.name} failed {check.detail}".strip())
