"""The built-in target."""

from collections.abc import Sequence

from trace_jax.contract.trajectory import Split
from trace_jax.environments.helpdesk.database import CITIES, CUSTOMERS, KINDS, ORDERS, PRODUCTS, STATUSES
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.draw import draw_task
from trace_jax.environments.helpdesk.lessons import KINDS as REQUEST_KINDS
from trace_jax.environments.helpdesk.lessons import draw_lesson, draw_practice, practice_task
from trace_jax.environments.helpdesk.practice.ladder import FamilyPractice, practice_on
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY
from trace_jax.environments.helpdesk.tools import RESULTS
from trace_jax.environments.protocol import PracticeTask

TRAIN_TASKS = 60
HELD_OUT_TASKS = 80


class Helpdesk:
    """60 training tickets, 80 held-out tickets, and practice for each of its six capabilities."""

    name = "helpdesk"
    results = RESULTS
    practised = tuple(BY_CAPABILITY)
    request_kinds = REQUEST_KINDS
    words = (*CITIES, *KINDS, *STATUSES)  # that look alike in a sentence and in a call
    identifiers = (*ORDERS, *PRODUCTS, *CUSTOMERS)

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return tuple(range(TRAIN_TASKS if split == "train" else HELD_OUT_TASKS))

    def turns_on(self, task: int) -> str:
        """The capability that a task turns on first. Only oracle routing may use it; no stage of the method does."""
        return sorted(BY_CAPABILITY)[task % len(BY_CAPABILITY)]

    def environment(self, split: Split) -> Desk:
        """An environment over the tickets of a split."""
        return Desk(self.name, lambda seed: draw_task(split, seed))

    def practice_for(self, capability: str) -> FamilyPractice | None:
        """The generated environments for a capability, or None if it is not one of ``practised``."""
        return practice_on(capability, RESULTS)

    def practice(self, seed: int, kinds: Sequence[str] = ()) -> PracticeTask:
        """A practice ticket with one request of each of ``kinds``; without kinds, one like a task."""
        return practice_task(draw_practice(seed, kinds))

    def lesson(self, seed: int, requests: int) -> PracticeTask:
        """A practice ticket of so many requests for a new agent, hard kinds oftener than the others."""
        return practice_task(draw_lesson(requests, seed))
