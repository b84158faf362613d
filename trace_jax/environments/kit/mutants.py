"""The same state with another goal: a scenario is drawn again with a single random choice of it changed."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeVar

from trace_jax.environments.kit.parts import changed_parts
from trace_jax.environments.kit.scenario import Scenario

S = TypeVar("S")

_OTHERS = 6  # other values that are tried for each choice


class _Traced(Random):
    """The random numbers of its key, but for the one with the number ``changed``, which comes from ``other``.

    ``drawn`` counts them. All methods of Random draw by one of the two methods here, so without a change the numbers
    are those of ``Random(key)``.
    """

    changed, drawn = -1, 0
    other: Random | None = None

    def random(self) -> float:
        usual = super().random()
        other = self._other_now()
        return usual if other is None else other.random()

    def getrandbits(self, k: int, /) -> int:
        usual = super().getrandbits(k)
        other = self._other_now()
        return usual if other is None else other.getrandbits(k)

    def _other_now(self) -> Random | None:
        """Where this number comes from, if it is the one that is changed."""
        self.drawn += 1
        return self.other if self.drawn == self.changed + 1 else None


def mutant_of(draw: Callable[[Random], Scenario[S]], key: str, scenario: Scenario[S]) -> Scenario[S] | None:
    """A scenario with the initial state of ``scenario``, and another goal; None if none is found.

    ``scenario`` is what ``draw`` returns for ``Random(key)``. Its random choices are changed singly, the last one
    first, so that as little as possible differs. The goal is another one if the expected state differs, or the words
    that a reply must hold. The words of the user may be the same: whether the goal was told is for a gate to say.
    """
    for found in _variants(draw, key):
        if _parts(scenario.initial, found.initial) or len(found.requests) != len(scenario.requests):
            continue
        said = [request.must_say for request in scenario.requests] != [request.must_say for request in found.requests]
        if said or _parts(scenario.expected, found.expected):
            return found
    return None


def _variants(draw: Callable[[Random], Scenario[S]], key: str) -> Iterator[Scenario[S]]:
    traced = _Traced(key)
    draw(traced)
    for number in reversed(range(traced.drawn)):
        for other in range(_OTHERS):
            changed = _Traced(key)
            changed.changed, changed.other = number, Random(f"{key}/other/{other}")
            yield draw(changed)


def _parts(before: Any, after: Any) -> bool:
    return any(changed_parts(before, after))
