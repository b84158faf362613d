"""The kinds of requests, each with its right path and, if it turns on a capability, the tempting wrong path.

A path is the agent's side of the exchange: tool calls, then one reply. ``build(drawer, customer)`` draws the rows of
the database that a request needs, and returns the request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trace_jax.environments.helpdesk.database import STATUSES, Drawer

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Path:
    """Tool calls one after the other, then the reply to the customer."""

    calls: tuple[Call, ...]
    reply: str


@dataclass(frozen=True)
class Request:
    """One request. ``subject`` is its summary in the subject line; ``must_say`` the words that the reply needs.

    ``kind`` is the name of the builder that drew it.
    """

    subject: str
    text: str
    right: Path
    wrong: Path | None = None
    must_say: tuple[str, ...] = ()
    kind: str = ""


def _get_order(order: str) -> Call:
    return ("get_order", {"order_id": order})


def _get_customer(customer: str) -> Call:
    return ("get_customer", {"customer_id": customer})


def _cancel(order: str) -> Call:
    return ("cancel_order", {"order_id": order})


def _refund(order: str, amount: int) -> Call:
    return ("refund", {"order_id": order, "amount": amount})


def _resend(order: str, city: str) -> Call:
    return ("resend_order", {"order_id": order, "city": city})


def _place(customer: str, product: str) -> Call:
    return ("place_order", {"customer_id": customer, "product_id": product})


def _set_city(customer: str, city: str) -> Call:
    return ("set_city", {"customer_id": customer, "city": city})


def _unlock(order: str) -> Call:
    return ("unlock_order", {"order_id": order})


def _move(drawer: Drawer, customer: str) -> str:
    drawer.city_on_file[customer] = drawer.city(drawer.city_on_file[customer])
    return drawer.city_on_file[customer]


def _prices(drawer: Drawer, order: str) -> list[tuple[str, int]]:
    return list(drawer.database.orders[order]["items"].items())


# Requests that turn on no particular capability.


def status(drawer: Drawer, customer: str) -> Request:
    value = drawer.choice(STATUSES)
    order = drawer.order(customer, value)
    right = Path((_get_order(order),), f"{order} is {value}.")
    return Request("order status", f"What is the status of order {order}?", right, must_say=(value,))


def new_city(drawer: Drawer, customer: str) -> Request:
    city = _move(drawer, customer)
    right = Path((_set_city(customer, city),), f"Your city is now {city}.")
    return Request("new city", f"Please change my city to {city}.", right)


def cancel(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "processing")
    right = Path((_get_order(order), _cancel(order)), f"Cancelled {order}.")
    return Request("cancel an order", f"Please cancel order {order}.", right)


def refund_item(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "delivered")
    ((item, price),) = _prices(drawer, order)
    right = Path((_get_order(order), _refund(order, price)), f"Refunded {price}.")
    return Request("refund of an item", f"Please refund the {item} of order {order}.", right)


def buy(drawer: Drawer, customer: str) -> Request:
    product = drawer.product(drawer.fresh_kind(), int(drawer.rng.integers(1, 10)), int(drawer.rng.integers(1, 10)))
    right = Path((_place(customer, product),), f"Ordered {product}.")
    return Request("buy a product", f"Please order product {product} for me.", right)


def resend_to(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "shipped")
    city = drawer.city(drawer.city_on_file[customer])
    right = Path((_resend(order, city),), f"Resent {order} to {city}.")
    return Request("resend to a city", f"Please resend order {order} to {city}.", right)


# Look the fact up before acting on what somebody said in passing.


def resend_on_file(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "shipped")
    filed = drawer.city_on_file[customer]
    here = drawer.city(filed)
    return Request(
        "resend to my city",
        f"Please resend order {order} to my city on file, I am in {here} only today.",
        Path((_get_customer(customer), _resend(order, filed)), f"Resent {order} to {filed}."),
        Path((_resend(order, here),), f"Resent {order} to {here}."),
    )


def refund_recalled(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "delivered")
    ((item, price),) = _prices(drawer, order)
    recalled = 1 + int((price - 1 + drawer.rng.integers(1, 9)) % 9)
    return Request(
        "refund, price not sure",
        f"Please refund the {item} of order {order}, I think it was {recalled}.",
        Path((_get_order(order), _refund(order, price)), f"Refunded {price}."),
        Path((_refund(order, recalled),), f"Refunded {recalled}."),
    )


# Do every part of a compound request.


def city_and_status(drawer: Drawer, customer: str) -> Request:
    value = drawer.choice(STATUSES)
    order = drawer.order(customer, value)
    city = _move(drawer, customer)
    return Request(
        "new city and status",
        f"Please change my city to {city} and tell me the status of order {order}.",
        Path((_set_city(customer, city), _get_order(order)), f"Your city is now {city}. {order} is {value}."),
        Path((_set_city(customer, city),), f"Your city is now {city}."),
        must_say=(value,),
    )


def city_and_cancel(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "processing")
    city = _move(drawer, customer)
    return Request(
        "new city and a cancellation",
        f"Please change my city to {city} and cancel order {order}.",
        Path(
            (_set_city(customer, city), _get_order(order), _cancel(order)),
            f"Your city is now {city}. Cancelled {order}.",
        ),
        Path((_set_city(customer, city),), f"Your city is now {city}."),
    )


# Compute over retrieved values.


def refund_two(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "delivered", items=2)
    (first, first_price), (second, second_price) = _prices(drawer, order)
    total = first_price + second_price
    return Request(
        "refund of two items",
        f"Please refund the {first} and the {second} of order {order} in one sum.",
        Path((_get_order(order), _refund(order, total)), f"Refunded {total}."),
        Path((_get_order(order), _refund(order, first_price)), f"Refunded {first_price}."),
    )


def price_of_two(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, drawer.choice(STATUSES), items=2)
    (first, first_price), (second, second_price) = _prices(drawer, order)
    total = first_price + second_price
    return Request(
        "price of two items",
        f"What do the {first} and the {second} of order {order} cost together?",
        Path((_get_order(order),), f"They cost {total}."),
        Path((_get_order(order),), f"They cost {first_price}."),
        must_say=(f"cost {total}",),
    )


# Choose among records under constraints.


def _choose(drawer: Drawer, customer: str, word: str, listed: int) -> Request:
    """Products are listed cheapest first, so the one that is asked for comes last."""
    kind = drawer.fresh_kind()
    prices = sorted(int(price) for price in drawer.rng.permutation(range(1, 10))[:listed])
    first, *_, last = [drawer.product(kind, price, int(drawer.rng.integers(1, 10))) for price in prices]
    search = ("search_products", {"kind": kind})
    return Request(
        f"the {word} {kind}",
        f"Please order the {word} {kind} in stock for me.",
        Path((search, _place(customer, last)), f"Ordered {last}."),
        Path((search, _place(customer, first)), f"Ordered {first}."),
    )


def dearer(drawer: Drawer, customer: str) -> Request:
    return _choose(drawer, customer, "dearer", 2)


def dearest(drawer: Drawer, customer: str) -> Request:
    return _choose(drawer, customer, "dearest", 3)


# Refuse what the policy forbids, and say why.


def cancel_forbidden(drawer: Drawer, customer: str) -> Request:
    value = drawer.choice(("shipped", "delivered"))
    order = drawer.order(customer, value)
    right = Path((_get_order(order),), f"I cannot cancel {order}: it is {value}.")
    return Request("cancel an order", f"Please cancel order {order}.", right, must_say=("cannot", value))


def refund_forbidden(drawer: Drawer, customer: str) -> Request:
    value = drawer.choice(("processing", "shipped"))
    order = drawer.order(customer, value)
    ((item, _),) = _prices(drawer, order)
    right = Path((_get_order(order),), f"I cannot refund {order}: it is {value}.")
    return Request(
        "refund of an item", f"Please refund the {item} of order {order}.", right, must_say=("cannot", value)
    )


# Recover from a tool error.


def cancel_locked(drawer: Drawer, customer: str) -> Request:
    order = drawer.order(customer, "processing", locked=True)
    right = Path((_get_order(order), _cancel(order), _unlock(order), _cancel(order)), f"Cancelled {order}.")
    return Request("cancel an order", f"Please cancel order {order}.", right)


def status_timeout(drawer: Drawer, customer: str) -> Request:
    value = drawer.choice(STATUSES)
    order = drawer.order(customer, value)
    drawer.database.faults[order] = 1
    right = Path((_get_order(order), _get_order(order)), f"{order} is {value}.")
    return Request("order status", f"What is the status of order {order}?", right, must_say=(value,))


Builder = Callable[[Drawer, str], Request]

ROUTINE: tuple[Builder, ...] = (status, new_city, cancel, refund_item, buy, resend_to)
BY_CAPABILITY: dict[str, tuple[Builder, ...]] = {
    "verify_before_acting": (resend_on_file, refund_recalled),
    "complete_all_steps": (city_and_status, city_and_cancel),
    "compute_over_values": (refund_two, price_of_two),
    "choose_under_constraints": (dearer, dearest),
    "refuse_forbidden": (cancel_forbidden, refund_forbidden),
    "recover_from_error": (cancel_locked, status_timeout),
}
ALL: tuple[Builder, ...] = (*ROUTINE, *(builder for builders in BY_CAPABILITY.values() for builder in builders))
