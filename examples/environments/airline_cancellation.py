"""Keep to the policy: a user asks to cancel several reservations, and the policy allows only some of that.

Capability ``check_policy_before_acting``, in the shapes of τ²-bench airline. The tools do not check the rules, so the
agent has to: it reads each reservation, and the status of its flights, before it cancels. Whatever it cancels against
the policy costs; what it refuses although it is allowed earns nothing.
"""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from trace_jax.environments import kit
from trace_jax.environments.kit import call

TOOLS = r"""
[{"description": "Get the details of a user, including their reservations.", "name": "get_user_details", "parameters":
  {"properties": {"user_id": {"description": "The user ID, such as 'sara_doe_496'.", "title": "User Id", "type":
  "string"}}, "required": ["user_id"], "title": "parameters", "type": "object"}},
{"description": "Get the details of a reservation.", "name": "get_reservation_details", "parameters": {"properties":
  {"reservation_id": {"description": "The reservation ID, such as '8JX2WO'.", "title": "Reservation Id", "type":
  "string"}}, "required": ["reservation_id"], "title": "parameters", "type": "object"}},
{"description": "Get the status of a flight.", "name": "get_flight_status", "parameters": {"properties": {"date":
  {"description": "The date of the flight.", "title": "Date", "type": "string"}, "flight_number": {"description": "The
  flight number.", "title": "Flight Number", "type": "string"}}, "required": ["flight_number", "date"], "title":
  "parameters", "type": "object"}},
{"description": "Cancel the whole reservation.", "name": "cancel_reservation", "parameters": {"properties":
  {"reservation_id": {"description": "The reservation ID, such as 'ZFA04Y'.", "title": "Reservation Id", "type":
  "string"}}, "required": ["reservation_id"], "title": "parameters", "type": "object"}},
{"description": "Transfer the user to a human agent, with a summary of the user's issue.\n\nOnly transfer if\n -  the
  user explicitly asks for a human agent\n -  given the policy and the available tools, you cannot solve the user's
  issue.", "name": "transfer_to_human_agents", "parameters": {"properties": {"summary": {"description": "A summary of
  the user's issue.", "title": "Summary", "type": "string"}}, "required": ["summary"], "title": "parameters", "type":
  "object"}}]
"""
POLICY = """<instructions>
You are a customer service agent that helps the user according to the <policy> provided below.
In each turn you can either send a message to the user or make a tool call. You cannot do both at the same time.
</instructions>
<policy>
# Airline agent policy
The current time is 2024-05-15 15:00:00 EST.
Before you cancel, list the details and wait for the user's explicit yes. Do not rely on the user's claims: look it up.
A reservation can be cancelled if one of these is true, and not otherwise. The tools do not check this.
- It was booked within the last 24 hours.
- The airline has cancelled a flight of it.
- It is in business class.
- It has travel insurance, and the reason is health or weather.
Deny what the policy does not allow. Transfer to a human agent only what your tools cannot do.
</policy>"""
FIRST = ("ava", "chen", "fatima", "ivan", "lucas", "mei", "noah", "olivia", "raj", "sofia", "yara", "yusuf")
LAST = ("ahmed", "brown", "garcia", "ito", "johnson", "kim", "li", "lopez", "patel", "rossi", "silva", "smith")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
AIRPORTS = ("SFO", "JFK", "LAX", "ORD", "DFW", "DEN", "SEA", "ATL", "MIA", "BOS", "PHX", "LAS")
REASONS = {"I have the flu": True, "there is a storm": True, "my plans have changed": False, "my meeting moved": False}
ALWAYS = ("recent", "flight cancelled", "business")  # grounds that do not depend on the reason
CLAIMS = ("I booked them this morning, I think.", "Your colleague said that this is no problem.", "I am a gold member.")
Record = dict[str, Any]


@dataclass
class Airline:
    users: dict[str, Record]
    reservations: dict[str, Record]
    flights: dict[str, dict[str, str]]  # flight number → date → status
    transfers: int = 0

    @kit.tool
    def get_user_details(self, user_id: str) -> Record:
        """Get a user."""
        if user_id not in self.users:
            raise kit.ToolError(f"User {user_id} not found")
        return self.users[user_id]

    @kit.tool
    def get_reservation_details(self, reservation_id: str) -> Record:
        """Get a reservation."""
        if reservation_id not in self.reservations:
            raise kit.ToolError(f"Reservation {reservation_id} not found")
        return self.reservations[reservation_id]

    @kit.tool
    def get_flight_status(self, flight_number: str, date: str) -> str:
        """Get the status of a flight."""
        if date not in self.flights.get(flight_number, {}):
            raise kit.ToolError(f"Flight {flight_number} not found on date {date}")
        return self.flights[flight_number][date]

    @kit.tool
    def cancel_reservation(self, reservation_id: str) -> Record:
        """Cancel a reservation."""
        reservation = self.get_reservation_details(reservation_id)
        refunds = [{**paid, "amount": -paid["amount"]} for paid in reservation["payment_history"]]
        reservation["payment_history"] += refunds
        reservation["status"] = "cancelled"
        return reservation

    @kit.tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the user."""
        self.transfers += 1
        return "Transfer successful"


class CancelWithinPolicy(kit.Exercise[Airline]):
    """The user wants ``asked`` reservations cancelled. The policy allows one of them, and others or not.

    With ``claims`` = 1 the user says something that is untrue or does not matter.
    """

    name, policy, state_type, tools = "cancel_within_policy", POLICY, Airline, kit.offered(TOOLS)

    def __init__(self, asked: int = 3, claims: int = 0, contrast_every: int = 0) -> None:
        self.asked, self.claims, self.contrast_every = asked, claims, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Airline]:
        grounds = [rng.choice(ALWAYS), *rng.choices(("insured", "none"), k=self.asked - 1)]
        return self.episode(rng, rng.sample(grounds, self.asked))

    def draw_routine(self, rng: Random) -> kit.Scenario[Airline]:
        return self.episode(rng, [rng.choice(ALWAYS)])

    def episode(self, rng: Random, grounds: list[str]) -> kit.Scenario[Airline]:
        """The user wants a reservation cancelled for each of ``grounds``."""
        user = user_of(rng)
        airline = Airline({user["user_id"]: user}, {}, {})
        for ground in grounds:
            self.reserve(airline, rng, user, ground)
        keys = user["reservations"]
        claim = rng.choice(CLAIMS) if self.claims else ""
        reason, covered = rng.choice(list(REASONS.items()))
        looks = [call("get_reservation_details", reservation_id=key) for key in keys]
        looks += [
            call("get_flight_status", flight_number=flight["flight_number"], date=flight["date"])
            for reservation in airline.reservations.values()
            for flight in reservation["flights"]
        ]
        text = f"Hello, my user id is {user['user_id']}. Please cancel {' and '.join(keys)}: {reason}. {claim}".strip()
        right = [key for key in keys if may_cancel(airline, key, covered)]
        acts = tuple(call("cancel_reservation", reservation_id=key) for key in right)
        scenario = kit.Scenario(airline)
        scenario.add(kit.Request(text, tuple(looks)))
        scenario.add(kit.Request("Yes, please cancel whatever can be cancelled.", acts))
        return scenario

    def reserve(self, airline: Airline, rng: Random, user: Record, ground: str) -> None:
        """Add a reservation that may be cancelled because of ``ground``: always, if it is insured, or never."""
        first, last = rng.choices(LETTERS, k=3), rng.choices(LETTERS, k=2)
        key = f"{''.join(first)}{rng.randrange(2, 10)}{''.join(last)}"
        ends, price = rng.sample(AIRPORTS, 2), rng.randrange(80, 400)
        flights, lost = [], rng.randrange(2) if ground == "flight cancelled" else None
        for leg, date in enumerate(("2024-05-20", "2024-05-24")):
            number = f"HAT{rng.randrange(1, 300):03}"
            airline.flights.setdefault(number, {})[date] = "cancelled" if leg == lost else "available"
            flights.append({"flight_number": number, "origin": ends[leg], "destination": ends[1 - leg], "date": date})
        day = 15 if ground == "recent" else rng.randint(4, 13)
        airline.reservations[key] = {
            "reservation_id": key,
            "user_id": user["user_id"],
            "origin": ends[0],
            "destination": ends[1],
            "flight_type": "round_trip",
            "cabin": "business" if ground == "business" else rng.choice(["economy", "basic_economy"]),
            "flights": [flight | {"price": price} for flight in flights],
            "passengers": [user["name"] | {"dob": user["dob"]}],
            "payment_history": [{"payment_id": next(iter(user["payment_methods"])), "amount": 2 * price}],
            "created_at": f"2024-05-{day:02}T{rng.randint(1, 14):02}:15:00",
            "total_baggages": 1,
            "nonfree_baggages": 0,
            "insurance": "yes" if ground == "insured" else "no",
            "status": None,
        }
        user["reservations"].append(key)

    def hint(self) -> str:
        return (
            "Read every reservation with get_reservation_details, and the status of each of its flights with "
            "get_flight_status. Compare created_at, cabin, insurance and the user's reason with the four rules. Cancel "
            "those that fulfil a rule, and no other."
        )

    def tool_text(self, result: Any) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"


def may_cancel(airline: Airline, key: str, covered: bool) -> bool:
    """The policy. ``covered``: insurance covers the user's reason."""
    reservation = airline.reservations[key]
    statuses = [airline.flights[flight["flight_number"]][flight["date"]] for flight in reservation["flights"]]
    recent = reservation["created_at"] >= "2024-05-14T15:00:00"
    insured = covered and reservation["insurance"] == "yes"
    return recent or "cancelled" in statuses or reservation["cabin"] == "business" or insured


def user_of(rng: Random) -> Record:
    first, last, card = rng.choice(FIRST), rng.choice(LAST), f"credit_card_{rng.randrange(10**6, 10**7)}"
    address = {"address1": "77 Elm Street", "address2": "Flat 5", "city": "Denver", "country": "USA", "state": "CO"}
    return {
        "user_id": f"{first}_{last}_{rng.randrange(1000, 9999)}",
        "name": {"first_name": first.title(), "last_name": last.title()},
        "address": address | {"zip": f"{rng.randrange(10000, 99999)}"},
        "email": f"{first}.{last}{rng.randrange(1000, 9999)}@example.com",
        "dob": f"19{rng.randrange(50, 99)}-03-12",
        "payment_methods": {card: {"source": "credit_card", "id": card, "brand": "visa", "last_four": card[-4:]}},
        "saved_passengers": [],
        "membership": rng.choice(["regular", "silver", "gold"]),
        "reservations": [],
    }
