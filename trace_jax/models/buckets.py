"""Lengths rounded up to few values: few shapes, few compiles."""


def bucket(length: int, shortest: int = 16, steps: int = 2) -> int:
    """The smallest of ``steps`` sizes an octave that holds ``length``: with 2, 16, 24, 32, 48, 64, …; with 4, 16, 20, …

    ``shortest``, a power of two and a multiple of ``steps``, is the least that is returned.
    """
    octave = shortest
    while 2 * octave < length:
        octave *= 2
    step = octave // steps
    return max(octave, -(-length // step) * step)
