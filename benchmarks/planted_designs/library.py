"""A library as a target, and a sound environment for one capability of its desk: ``Fines``, which passes every gate."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Annotated, Any

from pydantic import Field

from trace_jax.contract.trajectory import Message
from trace_jax.environments import kit
from trace_jax.environments.kit import call
from trace_jax.environments.protocol import Environment, Prompts

ReaderId = Annotated[str, Field(description="A reader, such as R417")]
BookId = Annotated[str, Field(description="A book, such as B58")]
Amount = Annotated[int, Field(ge=1, description="Amount in cents")]
Weeks = Annotated[int, Field(ge=1, le=4, description="Number of weeks")]
TITLES = ("Dune", "Emma", "Persuasion", "Ulysses", "Middlemarch", "Kim", "Walden", "Dracula", "Utopia", "Candide")
KINDS = ("pay_two", "renew")
POLICY = "You are the desk of a library. Look the books of a reader up first. Pay what was asked for in one sum."


@dataclass
class Book:
    title: str
    shelf: str
    fine: int
    weeks: int = 2


@dataclass
class Payment:
    reader: str
    amount: int


@dataclass
class Library:
    loans: dict[str, dict[str, Book]]
    payments: list[Payment] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)

    def __deepcopy__(self, memo: Any) -> "Library":
        """The same as without it, in a tenth of the time."""
        loans = {reader: {key: replace(book) for key, book in books.items()} for reader, books in self.loans.items()}
        return Library(loans, [replace(payment) for payment in self.payments], list(self.letters))

    @kit.tool
    def list_books(self, reader_id: ReaderId) -> dict[str, Book]:
        """List the books that a reader has borrowed, with their fines."""
        return kit.look_up(self.loans, reader_id, "reader")

    @kit.tool
    def pay(self, reader_id: ReaderId, amount: Amount) -> None:
        """Pay an amount of a reader's fines."""
        kit.look_up(self.loans, reader_id, "reader")
        self.payments.append(Payment(reader_id, amount))

    @kit.tool
    def renew(self, book_id: BookId, weeks: Weeks) -> int:
        """Renew a loan. Returns the weeks that are left."""
        for books in self.loans.values():
            if book_id in books:
                books[book_id].weeks += weeks
                return books[book_id].weeks
        raise kit.ToolError(f"no book {book_id}")

    @kit.tool
    def list_overdue(self) -> list[str]:
        """List all books that are overdue."""
        return [key for books in self.loans.values() for key, book in books.items() if book.fine]

    @kit.tool
    def send_letter(self, reader_id: ReaderId) -> None:
        """Write to a reader that books are overdue."""
        kit.look_up(self.loans, reader_id, "reader")
        self.letters.append(reader_id)


def draw_library(rng: Random) -> tuple[Library, str]:
    """A library, and one of its readers."""
    readers = [f"R{number}" for number in rng.sample(range(100, 1000), 2)]
    books = iter(rng.sample(range(10, 100), 6))
    loans = {
        reader: {
            f"B{next(books)}": Book(title, f"S{rng.randrange(1, 10)}", rng.randrange(10, 60))
            for title in rng.sample(TITLES, 3)
        }
        for reader in readers
    }
    return Library(loans), rng.choice(readers)


def fines_of(library: Library, reader: str, rng: Random) -> kit.Request:
    """A reader pays the fines of two of three books."""
    first, second = rng.sample(list(library.loans[reader].values()), 2)
    text = f"This is {reader}. Pay the fines of {first.title} and {second.title}."
    paid = first.fine + second.fine
    calls = (call("list_books", reader_id=reader), call("pay", reader_id=reader, amount=paid))
    return kit.Request(text, calls, (str(paid),), "pay_two")


def renewal(library: Library, reader: str, rng: Random) -> kit.Request:
    """A reader renews one of three books."""
    key, book = rng.choice(list(library.loans[reader].items()))
    weeks = rng.randrange(1, 5)
    text = f"This is {reader}. Renew {book.title} by {weeks} weeks."
    calls = (call("list_books", reader_id=reader), call("renew", book_id=key, weeks=weeks))
    return kit.Request(text, calls, (), "renew")


class Desk(kit.Environment[Library]):
    """The target's own: fines and renewals."""

    name, state_type, policy = "library", Library, POLICY

    def draw(self, rng: Random) -> kit.Scenario[Library]:
        library, reader = draw_library(rng)
        scenario = kit.Scenario(library)
        for kind in self.kinds or rng.sample(KINDS, 2):
            make = fines_of if kind == "pay_two" else renewal
            scenario.add(make(scenario.expected, reader, rng))
        return scenario


class Fines(kit.Environment[Library]):
    """The sound environment: one request, which needs a sum."""

    name, state_type, policy = "compute_over_values", Library, POLICY

    def draw(self, rng: Random) -> kit.Scenario[Library]:
        library, reader = draw_library(rng)
        scenario = kit.Scenario(library)
        scenario.add(fines_of(library, reader, rng))
        return scenario

    def hint(self) -> str:
        """How to go about it."""
        return "List the books first, add the fines of those that were named, and pay the sum at once."

    def prompts(self, seed: int, combined_with: Environment | None = None) -> Prompts:
        """Openings of a seed: the request of an episode, and a renewal."""
        library, reader = draw_library(Random(f"prompts/{seed}"))
        asked = (fines_of(library, reader, Random(seed)), renewal(library, reader, Random(seed)))
        exercised, routine = (_opening(request.text) for request in asked)
        return Prompts(exercised, routine)


def _opening(text: str) -> tuple[Message, ...]:
    return (Message(role="system", content=POLICY), Message(role="user", content=text))


def target() -> kit.PracticeTarget:
    """The library as a target of 30 tasks a split."""
    return kit.PracticeTarget(Desk, train=30, held_out=30, kinds=KINDS)


def with_text(scenario: kit.Scenario[Library], texts: Sequence[str]) -> kit.Scenario[Library]:
    """A scenario whose users say something else."""
    changed = kit.Scenario(copy.deepcopy(scenario.initial))
    for request, text in zip(scenario.requests, texts, strict=True):
        changed.add(kit.Request(text, request.calls, request.must_say, request.kind))
    return changed
