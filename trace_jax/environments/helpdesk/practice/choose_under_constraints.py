"""Choose among records under constraints."""

from trace_jax.environments.helpdesk.database import Drawer
from trace_jax.environments.helpdesk.practice.desk import PracticeDesk, Turn
from trace_jax.environments.helpdesk.requests import (
    Builder,
    Request,
    buy,
    cancel,
    dearer,
    dearest,
    refund_item,
    status,
)
from trace_jax.errors import UserError


class ChooseUnderConstraints(PracticeDesk):
    """The dearest product in stock of at most ``listed`` products (2 or 3); 4 adds one that is sold out.

    Routine: the product is named, or nothing is bought.
    """

    capability = "choose_under_constraints"
    offered = ("search_products", "place_order", "get_order", "cancel_order", "refund")
    exercises = (dearer, dearest)
    routines = (buy, status, cancel, refund_item)
    easier = {"listed": 2}
    harder = {"listed": 4}

    def __init__(self, exercised: int = 1, routine: int = 1, contrast_every: int = 8, listed: int = 3) -> None:
        if not 2 <= listed <= 4:
            raise UserError(f"environment {self.capability}: listed={listed} lies outside 2 to 4")
        super().__init__(exercised, routine, contrast_every)
        self._listed = listed

    def _exercises(self) -> tuple[Builder, ...]:
        return tuple(self._listing(build) for build in self.exercises)

    def _listing(self, build: Builder) -> Builder:
        def listing(drawer: Drawer, customer: str) -> Request:
            request = build(drawer, customer)
            kind = request.right.calls[0][1]["kind"]
            if self._listed == 2:
                named = {_bought(request), _first(request)}
                rows = drawer.database.products
                for key in [key for key, row in rows.items() if row["kind"] == kind and key not in named]:
                    del rows[key]
            elif self._listed == 4:
                drawer.product(kind, int(drawer.rng.integers(1, 10)), stock=0)
            return request

        return listing

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether a dearer product was tried than the first listed, which the wrong path always takes."""
        price = {key: row["price"] for key, row in turn.before.products.items()}
        tried = [arguments.get("product_id") for name, arguments in turn.calls if name == "place_order"]
        return any(price[key] > price[_first(request)] for key in tried if isinstance(key, str) and key in price)


def _bought(request: Request) -> str:
    return str(request.right.calls[-1][1]["product_id"])


def _first(request: Request) -> str:
    assert request.wrong is not None
    return str(request.wrong.calls[-1][1]["product_id"])
