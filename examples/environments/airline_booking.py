"""Work out what is due: a booking is paid with several methods, and the amounts have to add up.

Capability ``compute_payments_exactly``, in the shapes of τ²-bench airline. The agent reads prices, membership and
balances, works out the free bags, the insurance and the total, and splits it. A wrong total is refused. The right
flight paid in another way, or with other bags, earns a part.
"""

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from trace_jax.environments import kit
from trace_jax.environments.kit import call

TOOLS = r"""
[{"description": "Get the details of a user, including their reservations.", "name": "get_user_details", "parameters":
  {"properties": {"user_id": {"description": "The user ID, such as 'sara_doe_496'.", "title": "User Id", "type":
  "string"}}, "required": ["user_id"], "title": "parameters", "type": "object"}},
{"description": "Search for direct flights between two cities on a specific date.", "name": "search_direct_flight",
  "parameters": {"properties": {"date": {"description": "The date of the flight in the format 'YYYY-MM-DD', such as
  '2024-01-01'.", "title": "Date", "type": "string"}, "destination": {"description": "The destination city airport in
  three letters, such as 'LAX'.", "title": "Destination", "type": "string"}, "origin": {"description": "The origin
  city airport in three letters, such as 'JFK'.", "title": "Origin", "type": "string"}}, "required": ["origin",
  "destination", "date"], "title": "parameters", "type": "object"}},
{"description": "Calculate the result of a mathematical expression.", "name": "calculate", "parameters":
  {"properties": {"expression": {"description": "The mathematical expression to calculate, such as '2 + 2'. The
  expression can contain numbers, operators (+, -, *, /), parentheses, and spaces.", "title": "Expression", "type":
  "string"}}, "required": ["expression"], "title": "parameters", "type": "object"}},
{"description": "Book a reservation.", "name": "book_reservation", "parameters": {"$defs": {"FlightInfo":
  {"properties": {"date": {"description": "The date for the flight in the format 'YYYY-MM-DD', such as '2024-05-01'.",
  "title": "Date", "type": "string"}, "flight_number": {"description": "Flight number, such as 'HAT001'.", "title":
  "Flight Number", "type": "string"}}, "required": ["flight_number", "date"], "title": "FlightInfo", "type":
  "object"}, "Passenger": {"properties": {"dob": {"description": "Date of birth in YYYY-MM-DD format", "title": "Dob",
  "type": "string"}, "first_name": {"description": "Passenger's first name", "title": "First Name", "type": "string"},
  "last_name": {"description": "Passenger's last name", "title": "Last Name", "type": "string"}}, "required":
  ["first_name", "last_name", "dob"], "title": "Passenger", "type": "object"}, "Payment": {"properties": {"amount":
  {"description": "Payment amount in dollars", "title": "Amount", "type": "integer"}, "payment_id": {"description":
  "Unique identifier for the payment", "title": "Payment Id", "type": "string"}}, "required": ["payment_id",
  "amount"], "title": "Payment", "type": "object"}}, "properties": {"cabin": {"description": "The cabin class such as
  'basic_economy', 'economy', or 'business'.", "enum": ["business", "economy", "basic_economy"], "title": "Cabin",
  "type": "string"}, "destination": {"description": "The IATA code for the destination city such as 'JFK'.", "title":
  "Destination", "type": "string"}, "flight_type": {"description": "The type of flight such as 'one_way' or
  'round_trip'.", "enum": ["round_trip", "one_way"], "title": "Flight Type", "type": "string"}, "flights":
  {"description": "An array of objects containing details about each piece of flight.", "items": {"anyOf": [{"$ref":
  "#/$defs/FlightInfo"}, {"additionalProperties": true, "type": "object"}]}, "title": "Flights", "type": "array"},
  "insurance": {"description": "Whether the reservation has insurance.", "enum": ["yes", "no"], "title": "Insurance",
  "type": "string"}, "nonfree_baggages": {"description": "The number of non-free baggage items to book the
  reservation.", "title": "Nonfree Baggages", "type": "integer"}, "origin": {"description": "The IATA code for the
  origin city such as 'SFO'.", "title": "Origin", "type": "string"}, "passengers": {"description": "An array of
  objects containing details about each passenger.", "items": {"anyOf": [{"$ref": "#/$defs/Passenger"},
  {"additionalProperties": true, "type": "object"}]}, "title": "Passengers", "type": "array"}, "payment_methods":
  {"description": "An array of objects containing details about each payment method.", "items": {"anyOf": [{"$ref":
  "#/$defs/Payment"}, {"additionalProperties": true, "type": "object"}]}, "title": "Payment Methods", "type":
  "array"}, "total_baggages": {"description": "The total number of baggage items to book the reservation.", "title":
  "Total Baggages", "type": "integer"}, "user_id": {"description": "The ID of the user to book the reservation such as
  'sara_doe_496'`.", "title": "User Id", "type": "string"}}, "required": ["user_id", "origin", "destination",
  "flight_type", "cabin", "flights", "passengers", "payment_methods", "total_baggages", "nonfree_baggages",
  "insurance"], "title": "parameters", "type": "object"}},
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
Before you book, list the details and wait for the user's explicit yes.
The price is that of the flight for each passenger. Travel insurance is 30 dollars per passenger.
Free checked bags per passenger: a regular member has 0 in basic economy, 1 in economy, 2 in business; a silver member
has one more than that, a gold member two more. Each further bag is 50 dollars. Do not add bags that nobody needs.
At most one travel certificate, one credit card and three gift cards pay for a reservation, all from the user's profile.
What is left of a certificate is lost. The amounts of all payments add up to the total.
Transfer to a human agent only what your tools cannot do.
</policy>"""
FIRST = ("Ava", "Chen", "Fatima", "Ivan", "Lucas", "Mei", "Noah", "Olivia", "Raj", "Sofia", "Yara", "Yusuf")
LAST = ("Ahmed", "Brown", "Garcia", "Ito", "Johnson", "Kim", "Li", "Lopez", "Patel", "Rossi", "Silva", "Smith")
AIRPORTS = ("SFO", "JFK", "LAX", "ORD", "DFW", "DEN", "SEA", "ATL", "MIA", "BOS", "PHX", "LAS")
CABINS = {"basic_economy": 0, "economy": 1, "business": 2}
LEVELS = {"regular": 0, "silver": 1, "gold": 2}
Record = dict[str, Any]


@dataclass
class Airline:
    users: dict[str, Record]
    flights: dict[str, Record]  # flight number → what a search shows
    date: str
    reservations: dict[str, Record]
    transfers: int = 0

    @kit.tool
    def get_user_details(self, user_id: str) -> Record:
        """Get a user."""
        if user_id not in self.users:
            raise kit.ToolError(f"User {user_id} not found")
        return self.users[user_id]

    @kit.tool
    def search_direct_flight(self, origin: str, destination: str, date: str) -> list[Record]:
        """Search flights."""
        ends = (origin, destination, date)
        return [each for each in self.flights.values() if (each["origin"], each["destination"], self.date) == ends]

    @kit.tool
    def calculate(self, expression: str) -> str:
        """Calculate."""
        return str(round(kit.arithmetic(expression), 2))

    @kit.tool
    def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: Literal["round_trip", "one_way"],
        cabin: Literal["business", "economy", "basic_economy"],
        flights: list[Record],
        passengers: list[Record],
        payment_methods: list[Record],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: Literal["yes", "no"],
    ) -> Record:
        """Book a flight."""
        methods = self.get_user_details(user_id)["payment_methods"]
        legs = []
        for each in flights:
            flight = self.flights.get(each.get("flight_number", ""))
            if flight is None or each.get("date") != self.date:
                raise kit.ToolError(f"Flight {each.get('flight_number')} not found on date {each.get('date')}")
            if flight["available_seats"][cabin] < len(passengers):
                raise kit.ToolError(f"Not enough seats on flight {flight['flight_number']}")
            leg = {key: flight[key] for key in ("flight_number", "origin", "destination")}
            legs.append(leg | {"date": self.date, "price": flight["prices"][cabin]})
        fees = 30 * len(passengers) * (insurance == "yes") + 50 * nonfree_baggages
        due = sum(leg["price"] for leg in legs) * len(passengers) + fees
        paid = {str(each.get("payment_id")): each.get("amount", 0) for each in payment_methods}
        for key, amount in paid.items():
            if key not in methods or type(amount) is not int:
                raise kit.ToolError(f"Payment method {key} not found")
            if methods[key].get("amount", amount) < amount:
                raise kit.ToolError(f"Not enough balance in payment method {key}")
        if sum(paid.values()) != due:
            raise kit.ToolError(f"Payment amount does not add up, total price is {due}, but paid {sum(paid.values())}")
        for key, amount in paid.items():
            if methods[key]["source"] == "certificate":
                del methods[key]
            elif methods[key]["source"] == "gift_card":
                methods[key]["amount"] -= amount
        for leg in legs:
            self.flights[leg["flight_number"]]["available_seats"][cabin] -= len(passengers)
        key = f"HA{len(self.reservations) % 10}HAT"
        self.users[user_id]["reservations"].append(key)
        trip: Record = {"reservation_id": key, "user_id": user_id, "origin": origin, "destination": destination}
        trip |= {"flight_type": flight_type, "cabin": cabin, "flights": legs, "passengers": passengers}
        trip |= {"payment_history": [{"payment_id": each, "amount": paid[each]} for each in sorted(paid)]}
        trip |= {"created_at": "2024-05-15T15:00:00", "total_baggages": total_baggages}
        trip |= {"nonfree_baggages": nonfree_baggages, "insurance": insurance, "status": None}
        self.reservations[key] = trip
        return trip

    @kit.tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the user."""
        self.transfers += 1
        return "Transfer successful"


class SplitPayment(kit.Exercise[Airline]):
    """A booking for ``passengers`` passengers is paid with a card; a gift card if ``methods`` is 2; a certificate if 3.

    ``bags`` is how many more bags there may be than passengers.
    """

    name, policy, state_type, tools = "split_payment", POLICY, Airline, kit.offered(TOOLS)

    def __init__(self, passengers: int = 2, methods: int = 3, bags: int = 3, contrast_every: int = 0) -> None:
        self.passengers, self.methods, self.bags, self.contrast_every = passengers, methods, bags, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Airline]:
        airline, user, flight = self.airline(rng)
        bags = rng.randint(self.passengers, self.passengers + self.bags)
        return self.episode(rng, airline, user, flight, self.methods, bags)

    def draw_routine(self, rng: Random) -> kit.Scenario[Airline]:
        airline, user, flight = self.airline(rng)
        return self.episode(rng, airline, user, flight, 1, 0)

    def episode(
        self, rng: Random, airline: Airline, user: Record, flight: Record, methods: int, bags: int
    ) -> kit.Scenario[Airline]:
        cabin, insurance = rng.choice(list(CABINS)), rng.choice(["yes", "no"])
        people = [user["name"] | {"dob": user["dob"]}, *user["saved_passengers"]]
        nonfree = max(0, bags - len(people) * (CABINS[cabin] + LEVELS[user["membership"]]))
        due = flight["prices"][cabin] * len(people) + 30 * len(people) * (insurance == "yes") + 50 * nonfree
        card, gift, certificate = user["payment_methods"].values()
        left, payments = due, []
        for each in ([certificate] * (methods > 2)) + ([gift] * (methods > 1)) + [card]:
            amount = min(left, int(each.get("amount", left)))
            left -= amount
            payments += [{"payment_id": each["id"], "amount": amount}] if amount else []
        how = {1: "my credit card", 2: "my gift card as far as it goes, and the rest with my credit card"}
        how[3] = f"my certificate first, then {how[2]}"
        text = f"Hello, my user id is {user['user_id']}. Please book me and all my saved passengers on {airline.date} "
        text += f"from {flight['origin']} to {flight['destination']}, one way, in {cabin.replace('_', ' ')}, on flight "
        text += f"{flight['flight_number']}. We check {bags or 'no'} bags in all, and want "
        text += f"{'the' if insurance == 'yes' else 'no'} travel insurance. I pay with {how[methods]}."
        looks = [call("get_user_details", user_id=user["user_id"])]
        ends = {key: flight[key] for key in ("origin", "destination")}
        looks += [call("search_direct_flight", **ends, date=airline.date)]
        sums = (
            f"{flight['prices'][cabin]} * {len(people)} + {30 * (insurance == 'yes')} * {len(people)} + 50 * {nonfree}"
        )
        scenario = kit.Scenario(airline)
        scenario.add(kit.Request(text, (*looks, call("calculate", expression=sums))))
        trip: Record = {
            "flight_type": "one_way",
            "cabin": cabin,
            "passengers": people,
            "payment_methods": payments,
            **ends,
        }
        trip["flights"] = [{"flight_number": flight["flight_number"], "date": airline.date}]
        trip |= {"total_baggages": bags, "nonfree_baggages": nonfree, "insurance": insurance}
        act = call("book_reservation", user_id=user["user_id"], **trip)
        scenario.add(kit.Request("Yes, please book that.", (act,)))
        return scenario

    def airline(self, rng: Random) -> tuple[Airline, Record, Record]:
        """An airline with one user, and three flights, of which the user wants the last."""
        (first, *names), last = rng.sample(FIRST, self.passengers), rng.choice(LAST)
        user_id = f"{first}_{last}_{rng.randrange(1000, 9999)}".lower()
        methods: list[Record] = [
            {"source": kind, "id": f"{kind}_{rng.randrange(10**6, 10**7)}"}
            for kind in ("credit_card", "gift_card", "certificate")
        ]
        methods[0] |= {"brand": "visa", "last_four": methods[0]["id"][-4:]}
        methods[1]["amount"], methods[2]["amount"] = float(rng.randrange(20, 90)), float(rng.randrange(25, 100, 25))
        address = {"address1": "77 Elm Street", "address2": "Flat 5", "city": "Denver", "country": "USA", "state": "CO"}
        address |= {"zip": f"{rng.randrange(10000, 99999)}"}
        earlier = f"KM{rng.randrange(10)}PLQ"
        others = [{"first_name": each, "last_name": last, "dob": f"20{rng.randrange(10, 20)}-07-01"} for each in names]
        user: Record = {"user_id": user_id, "name": {"first_name": first, "last_name": last}, "address": address}
        user |= {"email": f"{first}.{last}{user_id[-4:]}@example.com".lower()}
        user["dob"] = f"19{rng.randrange(50, 99)}-03-12"
        user |= {"payment_methods": {each["id"]: each for each in methods}}
        user |= {"saved_passengers": others, "membership": rng.choice(list(LEVELS)), "reservations": [earlier]}
        origin, destination = rng.sample(AIRPORTS, 2)
        flights = {}
        for number in rng.sample(range(1, 300), 3):
            departs, base, key = rng.randint(1, 18), rng.randrange(50, 120), f"HAT{number:03}"
            flight: Record = {"flight_number": key, "origin": origin, "destination": destination, "status": "available"}
            flight |= {"scheduled_departure_time_est": f"{departs:02}:00:00", "date": None}
            flight |= {"scheduled_arrival_time_est": f"{departs + 4:02}:30:00"}
            flight["available_seats"] = {each: rng.randint(5, 19) for each in CABINS}
            flight["prices"] = {each: base + 90 * place + rng.randrange(40) for place, each in enumerate(CABINS)}
            flights[key] = flight
        airline = Airline({user_id: user}, flights, f"2024-05-{rng.randint(17, 30)}", {})
        return airline, user, list(flights.values())[-1]

    def hint(self) -> str:
        return (
            "The total is price × passengers + 30 × passengers if insured + 50 × bags beyond the free ones of the "
            "user's membership and cabin. Use the whole certificate, then the gift card, and put the rest on the card."
        )

    def tool_text(self, result: Any) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"
