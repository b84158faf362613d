"""The target: which tickets there are, and in which split each one lies."""

import hashlib
from typing import Literal

import numpy as np

from trace_jax.contract.trajectory import Split
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY, ROUTINE, Builder
from trace_jax.environments.helpdesk.results import RESULTS
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket

TRAIN_TASKS = 60
HELD_OUT_TASKS = 80
PAIR_SHARE = 0.2  # share of tickets that turn on two capabilities

# A customer belongs to exactly one source of tickets, so no ticket of one source can be drawn from another.
Source = Literal["train", "held_out", "practice"]
_SOURCES: tuple[Source, ...] = ("train", "held_out", "practice")


def generator(*key: object) -> np.random.Generator:
    """A random generator that depends on the key alone, on every platform."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def customer_of(source: Source, rng: np.random.Generator) -> str:
    """A customer id that occurs in tickets of ``source`` only."""
    return f"C{10 + 3 * int(rng.integers(30)) + _SOURCES.index(source)}"


def _pick(rng: np.random.Generator, builders: tuple[Builder, ...], count: int) -> list[Builder]:
    return [builders[rng.integers(len(builders))] for _ in range(count)]


def draw_task(source: Source, seed: int) -> Ticket:
    """A ticket of three or four requests that turns on one capability (asked of it 2 or 3 times), sometimes on two.

    Seeds take the capabilities in turn, so that every split holds as many tickets of one as of another.
    """
    rng = generator("helpdesk", source, seed)
    names = sorted(BY_CAPABILITY)
    first = names.pop(seed % len(names))
    second = names[rng.integers(len(names))]
    if rng.random() < PAIR_SHARE:
        counts = {first: int(rng.integers(1, 3)), second: 1}
    else:
        counts = {first: int(rng.integers(2, 4))}
    builders = [builder for name, count in counts.items() for builder in _pick(rng, BY_CAPABILITY[name], count)]
    builders += _pick(rng, ROUTINE, int(rng.integers(3, 5)) - len(builders))
    ordered = [builders[i] for i in rng.permutation(len(builders))]
    return draw_ticket(rng, customer_of(source, rng), ordered)


class Helpdesk:
    """The built-in target: 60 training tickets, 80 held-out ones; the practice tickets taught the base agent."""

    name = "helpdesk"
    results = RESULTS

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return tuple(range(TRAIN_TASKS if split == "train" else HELD_OUT_TASKS))

    def environment(self, split: Split) -> Desk:
        """An environment over the tickets of a split."""
        return Desk(self.name, lambda seed: draw_task(split, seed))
