"""Compute over values that were looked up."""

import re

from trace_jax.environments.helpdesk.database import Drawer
from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn
from trace_jax.environments.helpdesk.requests import (
    Builder,
    Request,
    cancel,
    new_city,
    price_of_two,
    refund_item,
    refund_two,
    resend_to,
    status,
)
from trace_jax.errors import UserError


class ComputeOverValues(PracticeDesk):
    """A sum of two prices, none above ``max_price`` (2 to 9). Routine: the price of one item, or none."""

    capability = "compute_over_values"
    offered = ("get_order", "refund", "cancel_order", "set_city", "resend_order")
    exercises = (refund_two, price_of_two)
    routines = (refund_item, status, cancel, new_city, resend_to)
    easier = {"max_price": 3}

    def __init__(self, exercised: int = 1, routine: int = 1, contrast_every: int = 8, max_price: int = 5) -> None:
        if not 2 <= max_price <= 9:
            raise UserError(f"environment {self.capability}: max_price={max_price} lies outside 2 to 9")
        super().__init__(exercised, routine, contrast_every)
        self._max_price = max_price

    def _exercises(self) -> tuple[Builder, ...]:
        return tuple(self._priced(build) for build in self.exercises)

    def _priced(self, build: Builder) -> Builder:
        def priced(drawer: Drawer, customer: str) -> Request:
            usual, drawer.max_price = drawer.max_price, self._max_price
            request = build(drawer, customer)
            drawer.max_price = usual
            return request

        return priced

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether the amount named is more than either price, as only a sum is."""
        prices = turn.before.orders[request.right.calls[0][1]["order_id"]]["items"].values()
        named = [int(digits) for digits in re.findall(r"\bcost (\d{1,3})\b", turn.reply or "")]
        named += [arguments["amount"] for name, arguments in turn.calls if name == "refund" and _is_amount(arguments)]
        return any(amount > max(prices) for amount in named)


def _is_amount(arguments: dict[str, object]) -> bool:
    return isinstance(arguments.get("amount"), int)
