"""Seeded damage to valid JSON files: what the wild holds, and what a bad disk or an unkind hand makes of it."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# Stand for values that are nested too deep to be copied or printed by Python itself.
_DEEP, _DEEPER = "@deep@", "@deeper@"
ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 1,
    lambda: 5,
    lambda: 0.5,
    lambda: -0.0,
    lambda: 1e308,
    lambda: 10**400,
    lambda: -(2**63) - 1,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "1",
    lambda: "null",
    lambda: "\ud83d",
    lambda: "\0\u2028é🙂",
    lambda: "x" * 5000,
    lambda: '{"a": [1, NaN, {"b": "\\ud83d"}]}',
    lambda: '{"a":' * 2000 + "1" + "}" * 2000,
    lambda: '{"price": 1' + "0" * 400 + "}",
    lambda: "9" * 5000,
    lambda: [],
    lambda: {},
    lambda: [None],
    lambda: [[]],
    lambda: {"": {}},
    lambda: {"role": "tool", "tool_messages": None},
    lambda: {"\ud83d": 1},
    lambda: _DEEP,
    lambda: _DEEPER,
)
_NESTED = {_DEEP: 150, _DEEPER: 2000}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every ``(container, key)`` in ``value``."""
    found: list[tuple[Any, Any]] = []
    queue = [value]
    while queue:
        container = queue.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                queue.append(container[key])
    return found


def damage_value(value: Any, rng: random.Random) -> Any:
    """A copy of ``value`` (a list or an object) with one to three places damaged."""
    damaged = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        choices = places(damaged)
        if not choices:
            break
        container, key = rng.choice(choices)
        other, theirs = rng.choice(choices)
        kind = rng.randrange(6)
        if kind < 3:
            container[key] = rng.choice(ODD)()
        elif kind == 3:
            del container[key]
        elif kind == 4:
            container[key] = copy.deepcopy(other[theirs])
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[str(key) + rng.choice(("", "_", "\ud83d"))] = container.pop(key)
    return damaged


def dumps(value: Any) -> bytes:
    """``value`` as Python writes it, NaN and half surrogate pairs included."""
    text = json.dumps(value)
    for name, depth in _NESTED.items():
        text = text.replace(f'"{name}"', '[{"a":' * (depth // 2) + "1" + "}]" * (depth // 2))
    return text.encode()


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """``data`` torn, flipped, or with pieces lost, doubled, or put in."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 2, 10, 1000)))
    odd = (b"\0" * 100, b"\xff\xfe", b"\n", b'"', b"}", b"[" * 5000, b'{"a":' * 5000, b"NaN", b"\\ud83d", b"\xed\xa0")
    return rng.choice(
        (
            data[:start],
            data[start:],
            data[:start] + data[end:],
            data[:end] + data[start:],
            data[:start] + rng.choice(odd) + data[start:],
            data[:start] + bytes([rng.randrange(256)]) + data[start + 1 :],
            data.decode(errors="replace").encode("utf-16"),
            b"\xef\xbb\xbf" + data,
            b"",
        )
    )


def mutations(valid: bytes, count: int, seed: int) -> list[bytes]:
    """``count`` damaged versions of ``valid``, a JSON file; two in three are still JSON as Python writes it."""
    rng = random.Random(seed)
    value = json.loads(valid)
    made = []
    for _ in range(count):
        if rng.random() < 2 / 3:
            made.append(dumps(damage_value(value, rng)))
        else:
            made.append(damage_bytes(valid, rng))
    return made
