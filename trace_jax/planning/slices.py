"""The shapes of TPU slices, and the numbers in Google's names for them.

``v5e-16`` and ``v6e-64`` count chips. ``v5p-64`` counts TensorCores, two a chip: it has 32 chips, in the shape 2x4x4.
If several shapes have the same number of chips, a name means the most compact shape. This module imports no JAX.

Sources: the Cloud TPU page of each generation ("configurations"), the GKE page "Plan TPUs", and XPK's table of systems.
"""

from itertools import combinations_with_replacement
from math import prod

from trace_jax.planning.chips import Chip

Sides = tuple[int, ...]

_SQUARES: tuple[Sides, ...] = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_CUBES: tuple[Sides, ...] = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))  # larger ones are made of 4x4x4
_MOST_CHIPS = 9216  # of one slice of any generation


def exists(chip: Chip, sides: Sides) -> bool:
    """Whether a slice of this shape exists. ``chip`` is a TPU."""
    if chip.rank == 2:
        return sides in _SQUARES
    cubes = len(sides) == 3 and all(side and side % 4 == 0 for side in sides) and list(sides) == sorted(sides)
    return sides in _SMALL_CUBES or (cubes and prod(sides) <= _MOST_CHIPS)


def compact_shape(chip: Chip, chips: int) -> Sides | None:
    """The most compact shape with this number of chips, which is the one that a name means; None if there is none."""
    if chip.rank == 2 or chips < 64:
        known = _SQUARES if chip.rank == 2 else _SMALL_CUBES
        return next((sides for sides in known if prod(sides) == chips), None)
    if chips > _MOST_CHIPS:
        return None
    lengths = [side for side in range(4, chips + 1, 4) if chips % side == 0]
    shapes = [sides for sides in combinations_with_replacement(lengths, 3) if prod(sides) == chips]
    return min(shapes, key=sum, default=None)


def named_shape(chip: Chip, number: int) -> Sides | None:
    """The shape of the slice ``v5p-NUMBER`` (``v6e-NUMBER``, …); None if there is no such slice."""
    chips, rest = divmod(number, chip.counted)
    return None if rest else compact_shape(chip, chips)


def slice_number(chip: Chip, sides: Sides) -> int:
    """The number in the name of a slice of this shape, for instance 128 for a v5p of 4x4x4 chips (``v5p-128``)."""
    return prod(sides) * chip.counted


def spelled(sides: Sides) -> str:
    """The shape as text, for instance ``2x4x4``."""
    return "x".join(map(str, sides))


def some_shapes(chip: Chip) -> str:
    """A list of the generation's shapes, for a message."""
    if chip.rank == 2:
        return ", ".join(map(spelled, _SQUARES))
    return ", ".join([*map(spelled, _SMALL_CUBES), "4x4x4, 4x4x8 or other multiples of 4, ascending"])
