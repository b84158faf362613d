"""No generated episode may be a task of the target: what users say is compared, as digests."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from trace_jax.contract.trajectory import Message, Split
from trace_jax.environments.protocol import Target

MOST = 1000  # tasks of a split that are opened, spread over all of them
_SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True)
class Openings:
    """What the users of a target's tasks say first, as digests. ``closed`` tasks could not be opened."""

    digests: frozenset[str] = frozenset()
    opened: int = 0
    closed: int = 0

    def among(self, messages: Iterable[Message]) -> list[str]:
        """Those texts of users among ``messages`` with which a task begins."""
        texts = [message.content or "" for message in messages if message.role == "user"]
        return [text for text in texts if _digest(text) in self.digests]


NO_TASKS = Openings()


def openings(target: Target) -> Openings:
    """The openings of the tasks of both splits. Tasks that cannot be opened are counted: their episodes break."""
    digests: set[str] = set()
    opened = closed = 0
    for split in _SPLITS:
        tasks = target.tasks(split)
        environment = target.environment(split)
        for task in tasks[:: -(-len(tasks) // MOST) or 1]:
            try:
                messages = environment.reset(task).messages
            except Exception:  # an environment is foreign code
                closed += 1
                continue
            opened += 1
            digests.update(_digest(message.content or "") for message in messages if message.role == "user")
    return Openings(frozenset(digests), opened, closed)


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode(errors="surrogatepass")).hexdigest()[:32]
