"""Seeded damage to files: JSON values replaced by odd ones, and bytes changed, cut or repeated."""

import copy
import json
from typing import Any

import numpy as np

ODD = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.0, -0.5, 1.5, 1e308, float("nan"), float("inf"), "", "x",
    "\ud800", "\x00", "..", "q_proj", "full_attention", "(", ".*", [], [None], ["x", 1], [[]], {}, {"x": 1},
    {"full_attention": {"rope_theta": 1e6}}, {"rope_type": "llama3"}, "llama", "qwen3_moe", "yarn",
]  # fmt: skip


def mutated_json(data: dict, random: np.random.Generator) -> bytes:
    """The object with up to three values replaced, dropped, added or moved; now and then damaged as text."""
    data = copy.deepcopy(data)
    for _ in range(int(random.integers(1, 4))):
        _mutate(data, random)
    text = json.dumps(data).encode()
    return mutated_bytes(text, random) if random.random() < 0.2 else text


def mutated_bytes(data: bytes, random: np.random.Generator, until: int | None = None) -> bytes:
    """The bytes with a few changed, cut out, repeated, or lost at the end; only before ``until`` if given."""
    changed, end = bytearray(data), len(data) if until is None else until
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, max(min(end, len(changed)), 1)))
        length = int(random.integers(1, 9))
        match int(random.integers(0, 5)):
            case 0:
                changed[at : at + length] = random.bytes(length)
            case 1:
                changed[at : at + 1] = bytes([1 << int(random.integers(0, 8))])
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                del changed[int(random.integers(0, len(changed) + 1)) :]
    return bytes(changed)


def _mutate(data: dict, random: np.random.Generator) -> None:
    node: Any = data
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = keys[int(random.integers(len(keys)))]
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.5:
            break
        node = node[key]
    match int(random.integers(0, 5)):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[str(ODD[int(random.integers(len(ODD)))])] = node[key]
        case 2 if isinstance(node[key], str):
            node[key] = node[key] + str(random.choice(["", "x", "/", ".", "0"]))
        case _:
            node[key] = copy.deepcopy(ODD[int(random.integers(len(ODD)))])
