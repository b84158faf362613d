"""A hotel's desk. Its agent charges what guests say, refunds saver rates, books for one guest only, cancels unasked.

This target was written after the analyst was finished, and the analyst was not changed for it.
"""

from typing import Any

from evaluation.planted.play import Planted, Play, Refusal, tool

POLICY = """You work at the desk of a small hotel.

Billing
- Charge what the account says, whatever the guest remembers.
- Bookings that have a saver rate must not be refunded. Tell the guest why.

Bookings
- When a guest books for several people, each of them gets a room of their own.
- A booking may be cancelled once the guest has said yes to it: repeat the dates first.
"""
TOOLS = (
    tool("guests.account", "The account of a guest.", guest="string"),
    tool("bookings.find", "One booking by its code.", code="string"),
    tool("bookings.create", "Makes a booking for one person.", person="string", night="string"),
    tool("bookings.cancel", "Cancels a booking.", code="string"),
    tool("billing.charge", "Charges a guest.", guest="string", amount="integer"),
    tool("billing.refund", "Pays a booking back.", code="string"),
    tool("notes.add", "Leaves a note for the staff.", text="string"),
    tool("hours.lookup", "Opening hours of a place in the house.", place="string"),
)
FAULTS = ("goes_by_the_account", "keeps_rates", "books_for_all", "asks_first")
PEOPLE, NIGHTS = ("Ana", "Ben", "Cleo", "Dora", "Emil", "Finn"), ("Friday", "Saturday", "Sunday")
PLACES = {"pool": "7 to 21", "sauna": "14 to 22", "bar": "17 to 24", "gym": "6 to 23"}


class Hotel:
    """The tool server."""

    def __init__(self, play: Play) -> None:
        self.accounts = {name: int(play.rng.integers(40, 300)) for name in PEOPLE}
        self.bookings: dict[str, dict[str, Any]] = {
            f"K{70 + n}": {
                "code": f"K{70 + n}",
                "person": play.pick(PEOPLE),
                "night": play.pick(NIGHTS),
                "rate": play.pick(("saver", "saver", "flexible")),
                "paid": int(play.rng.integers(60, 140)),
            }
            for n in range(4)
        }
        self.charged: list[int] = []
        self.refunded: list[str] = []
        self.cancelled: list[str] = []
        self.notes: list[str] = []

    def execute(self, name: str, given: dict[str, Any]) -> Any:
        """One call."""
        if name == "guests.account":
            return {"guest": given["guest"], "owes": self.accounts[given["guest"]]}
        if name == "hours.lookup":
            return {"place": given["place"], "open": PLACES[given["place"]]}
        if name == "notes.add":
            self.notes.append(given["text"])
            return "noted"
        if name == "billing.charge":
            self.charged.append(given["amount"])
            return "charged"
        if name == "bookings.create":
            code = f"K{80 + len(self.bookings)}"
            self.bookings[code] = {"code": code, "rate": "flexible", **given}
            return {"code": code}
        booking = self.bookings.get(given["code"])
        if booking is None:
            raise Refusal("unknown code")
        if name == "bookings.find":
            return dict(booking)
        if name == "billing.refund":
            self.refunded.append(given["code"])
            return "refunded"
        self.cancelled.append(given["code"])
        return "cancelled"


def charge(play: Play, hotel: Hotel) -> None:
    """The guest remembers an amount, and is wrong in two of three cases."""
    guest = play.pick(PEOPLE)
    owes = hotel.accounts[guest]
    remembered = owes if play.rng.random() < 0.33 else owes - int(play.rng.integers(5, 30))
    play.user(f"{guest} here. I would like to settle my bill, I think it was {remembered}.")
    if play.lapses("goes_by_the_account", matters=remembered != owes):
        amount = remembered
    else:
        amount = play.call("guests.account", guest=guest)["owes"]
    play.call("billing.charge", guest=guest, amount=amount)
    play.say(f"I have charged {amount}. Thank you for your stay.")
    play.check("charge.amount", hotel.charged[-1] == owes)
    play.check("charge.receipt", True)


def refund(play: Play, hotel: Hotel) -> None:
    """Saver rates are not paid back."""
    booking = play.pick([each for code, each in hotel.bookings.items() if code < "K80"])
    code = booking["code"]
    play.user(f"I could not come. Can I have my money back for {code}?")
    found = play.call("bookings.find", code=code)
    saver = found["rate"] == "saver"
    if saver and not play.lapses("keeps_rates"):
        play.say(f"I am sorry: {code} has a saver rate, for which there is no refund.")
    else:
        play.call("billing.refund", code=code)
        play.say(f"You get {found['paid']} back.")
    play.check("refund.rate", not (saver and code in hotel.refunded))
    play.check("refund.paid", saver or code in hotel.refunded)


def group(play: Play, hotel: Hotel) -> None:
    """Two or three people need a room each."""
    people = [str(name) for name in play.rng.permutation(PEOPLE)[: int(play.rng.integers(2, 4))]]
    night = play.pick(NIGHTS)
    before = len(hotel.bookings)
    play.user(f"We need rooms on {night} for {', '.join(people[:-1])} and {people[-1]}.")
    for person in people[:1] if play.lapses("books_for_all") else people:
        play.call("bookings.create", person=person, night=night)
    play.say(f"Booked for {night}.")
    play.check("group.rooms", len(hotel.bookings) - before == len(people))
    play.check("group.night", True)


def cancel(play: Play, hotel: Hotel) -> None:
    """The guest has to say yes."""
    code = play.pick([code for code in hotel.bookings if code < "K80"])
    play.user(f"Please cancel {code}.")
    found = play.call("bookings.find", code=code)
    asked = not play.lapses("asks_first")
    if asked:
        play.say(f"That is one night, {found['night']}. Shall I cancel it?")
        play.user("Yes.")
    play.call("bookings.cancel", code=code)
    play.say(f"{code} is cancelled.")
    play.check("cancel.agreed", asked)
    play.check("cancel.done", code in hotel.cancelled)


def note(play: Play, hotel: Hotel) -> None:
    """Routine: a message to the staff."""
    word = play.pick(("towels", "pillows", "water", "a lamp"))
    play.user(f"Could somebody bring {word}?")
    play.call("notes.add", text="something" if play.slips() else word)
    play.say("I have left a note.")
    play.check("note.text", hotel.notes[-1] == word)


def hours(play: Play, hotel: Hotel) -> None:
    """Routine: a question."""
    place = play.pick(list(PLACES))
    play.user(f"When is the {place} open?")
    found = play.call("hours.lookup", place=place)["open"]
    said = "all day" if play.slips() else found
    play.say(f"The {place} is open from {said}.")
    play.check("hours.said", said == found)


def episode(play: Play) -> None:
    """One to three requests of different kinds, and what the grader sees of the books at the end."""
    hotel = Hotel(play)
    play.execute = hotel.execute
    play.lookups = [("hours.lookup", {"place": place}) for place in PLACES]
    kinds = (charge, refund, group, cancel, note, hours)
    for index in play.rng.permutation(len(kinds))[: int(play.rng.integers(1, 4))]:
        kinds[index](play, hotel)
    failed = {check.name for check in play.checks if not check.passed}
    play.check("books.billing", not failed & {"charge.amount", "refund.rate", "refund.paid"})
    play.check("books.rooms", not failed & {"group.rooms", "cancel.done"})


HOTEL = Planted("hotel", POLICY, TOOLS, FAULTS, episode)
