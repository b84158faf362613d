"""Lengths rounded up to few values: few shapes, few compiles."""


def bucket(length: int, shortest: int = 16) -> int:
    """The smallest ``2^k`` or ``1.5 * 2^k`` that holds ``length``: 16, 24, 32, 48, 64, 96, …

    ``shortest``, a power of two, is the least that is returned.
    """
    size = shortest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size
