"""Rounds lengths up to a few values, so that there are few shapes and few compilations."""


def bucket(length: int, shortest: int = 16, steps: int = 2) -> int:
    """The smallest bucket size that is at least ``length``. There are ``steps`` sizes between two powers of two.

    With 2 steps the sizes are 16, 24, 32, 48, 64, …; with 4 steps they are 16, 20, 24, 28, 32, 40, …. ``shortest`` is
    the smallest size: a power of two and a multiple of ``steps``.
    """
    octave = shortest
    while 2 * octave < length:
        octave *= 2
    step = octave // steps
    return max(octave, -(-length // step) * step)
