"""Short sequences side by side in rows of one length."""

from collections.abc import Sequence

PackedRow = tuple[int, ...]  # indices of the sequences in it, in order

_OPEN_ROWS = 32  # rows that may still take a sequence: enough to fill them, few enough to keep the order random


def pack(lengths: Sequence[int], order: Sequence[int], capacity: int) -> list[PackedRow]:
    """Every index of ``order`` in exactly one row, whose lengths sum to at most ``capacity``.

    Best fit among the last few open rows. No length may exceed ``capacity``.
    """
    done: list[PackedRow] = []
    rows: list[tuple[int, list[int]]] = []  # room left, indices
    for index in order:
        length = lengths[index]
        fitting = [place for place, (room, _) in enumerate(rows) if room >= length]
        if fitting:
            place = min(fitting, key=lambda place: rows[place][0])
            room, held = rows.pop(place)
        else:
            if len(rows) == _OPEN_ROWS:
                done.append(tuple(rows.pop(min(range(_OPEN_ROWS), key=lambda place: rows[place][0]))[1]))
            room, held = capacity, []
        held.append(int(index))
        rows.append((room - length, held))
    return done + [tuple(held) for _, held in rows]
