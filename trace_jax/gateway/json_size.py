"""How many values a JSON text holds, found without parsing it.

A parser keeps Python's interpreter lock from its first byte to its last, so that nothing else runs meanwhile. Long
strings cost it little (15 MB take 20 ms), but 15 MB of empty lists take more than a second. Bounding the number of
values bounds the time.
"""

MAX_VALUES = 1 << 18  # parsed in less than 0.1 s, whatever they are; a prompt in token ids has room
_STRUCTURE = b",[{"  # each of these stands before at most one value
_PART = 1 << 20  # bytes counted at a time
_BACKSLASH = ord("\\")


def count_values(text: bytes, limit: int) -> int:
    """An upper bound of the number of values in ``text``, at most one too many for each list or object.

    Counting ends above ``limit``. Text that is no JSON has a bound too.
    """
    rough = _count(text, 0, len(text), limit) + 1  # characters inside strings are counted too
    return rough if rough <= limit else _count_outside_strings(text, limit)


def _count_outside_strings(text: bytes, limit: int) -> int:
    values, strings, at = 1, 0, 0
    while values <= limit and strings <= 2 * limit:  # keys are strings as well
        begin = text.find(b'"', at)
        end = len(text) if begin < 0 else begin
        values += _count(text, at, end, limit)
        if begin < 0:
            return values
        at = _after_string(text, begin)
        strings += 1
    return limit + 1


def _count(text: bytes, begin: int, end: int, limit: int) -> int:
    """How many characters of ``_STRUCTURE`` stand from ``begin`` to ``end``; counting ends above ``limit``."""
    found = 0
    for at in range(begin, end, _PART):
        part = text[at : min(at + _PART, end)]
        found += len(part) - len(part.translate(None, _STRUCTURE))
        if found > limit:
            break
    return found


def _after_string(text: bytes, begin: int) -> int:
    """Where the string that begins at ``begin`` has ended, or the end of the text."""
    at = begin + 1
    while (end := text.find(b'"', at)) >= 0:
        before = end - 1
        while before > begin and text[before] == _BACKSLASH:
            before -= 1
        if (end - before) % 2:  # an even number of backslashes stands before the quote
            return end + 1
        at = end + 1
    return len(text)
