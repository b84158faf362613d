import pytest

from trace_jax.analysis.rules import policy_verdict

AIRLINE = """The current time is 2024-05-15 15:00:00 EST.
- Change flights: Basic economy flights cannot be modified. Other reservations can be modified.
- Change cabin: all reservations, including basic economy, can change cabin without changing the flights.
- All reservations can be cancelled within 24 hours of booking, or if the airline cancelled the flight. Otherwise, \
basic economy or economy flights can be cancelled only if travel insurance is bought and the condition is met, and \
business flights can always be cancelled."""
DESK = "Cancel only processing orders, refund only delivered orders, else refuse and say the status."
FLIGHTS = [{"flight_number": "HAT001"}, {"flight_number": "HAT002"}]


def ticket(cabin: str, insurance: str = "no", created: str = "2024-05-01T10:00:00") -> dict[str, object]:
    return {
        "reservation_id": "ABC123",
        "cabin": cabin,
        "insurance": insurance,
        "created_at": created,
        "flights": FLIGHTS,
    }


@pytest.mark.parametrize(
    ("record", "forbidden"),
    [
        (ticket("basic_economy"), True),
        (ticket("economy"), True),
        (ticket("economy", insurance="yes"), None),
        (ticket("business"), None),
        (ticket("basic_economy", created="2024-05-15T02:00:00"), False),  # thirteen hours old
        (ticket("basic_economy", created="2024-05-14T14:00:00"), True),  # twenty-five
    ],
)
def test_cancelling_under_the_airline_policy(record: dict[str, object], forbidden: bool | None) -> None:
    verdict = policy_verdict(AIRLINE, "cancel_reservation", {"reservation_id": "ABC123"}, record)
    assert (None if verdict is None else verdict.forbidden) is forbidden


def test_changing_flights_and_changing_only_the_cabin() -> None:
    other = [{"flight_number": "HAT009"}]
    change, upgrade = {"flights": other, "cabin": "economy"}, {"flights": FLIGHTS, "cabin": "economy"}
    tool = "update_reservation_flights"
    assert (verdict := policy_verdict(AIRLINE, tool, change, ticket("basic_economy"))) and verdict.forbidden
    assert (verdict := policy_verdict(AIRLINE, tool, upgrade, ticket("basic_economy"))) and not verdict.forbidden
    assert policy_verdict(AIRLINE, tool, change, ticket("economy")) is None
    assert policy_verdict(AIRLINE, "update_reservation_passengers", {"passengers": []}, ticket("basic_economy")) is None


@pytest.mark.parametrize(
    "policy", [DESK, "Cancel only orders that are processing. Refund only orders that are delivered."]
)
def test_statuses_that_an_action_needs(policy: str) -> None:
    for tool, status, forbidden in (
        ("cancel_order", "processing", False),
        ("cancel_order", "shipped", True),
        ("refund", "delivered", False),
        ("refund", "processing", True),
    ):
        verdict = policy_verdict(policy, tool, {"order_id": "O12"}, {"status": status, "items": {"mug": 3}})
        assert verdict is not None and verdict.forbidden is forbidden
    assert policy_verdict(policy, "resend_order", {"order_id": "O12"}, {"status": "shipped"}) is None
