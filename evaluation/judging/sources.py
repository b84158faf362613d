"""The sources of known truth, by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evaluation.judging.helpdesk import helpdesk_truth
from evaluation.judging.people import PEOPLE, people_truth
from evaluation.judging.planted import planted_truth
from evaluation.judging.truth import Truth
from evaluation.planted.bank import BANK
from evaluation.planted.calendar import CALENDAR
from trace_jax.errors import UserError

SOURCES: dict[str, Callable[[int], Truth]] = {
    "helpdesk": helpdesk_truth,
    "calendar": lambda seed: planted_truth(CALENDAR, seed),
    "bank": lambda seed: planted_truth(BANK, seed),
}


@dataclass(frozen=True)
class Source:
    """A draw of a source, not yet made."""

    name: str
    seed: int
    make: Callable[[], Truth]

    @property
    def directory(self) -> str:
        """Where its analysis lies in the work directory."""
        return f"{self.name}-{self.seed}"


def sources(names: list[str], seeds: int, agentrx: str | None) -> Iterator[Source]:
    """``seeds`` draws of each of ``names``, then people's labels in the directory ``agentrx``.

    Raises UserError for an unknown name, and if there is no source at all.
    """
    for name in names:
        if name not in SOURCES:
            raise UserError(f"no source {name!r}: known are {', '.join(SOURCES)}; people's labels are --agentrx=DIR")
        for seed in range(seeds):
            yield Source(name, seed, lambda make=SOURCES[name], seed=seed: make(seed))  # type: ignore[misc]
    if agentrx:
        yield Source(PEOPLE, 0, lambda: people_truth(agentrx))
    elif not names:
        raise UserError("nothing to judge on: name --sources, or people's labels with --agentrx=DIR")
