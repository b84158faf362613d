"""The shop's state: customers, orders and products, drawn from a random generator."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Paris", "Delhi", "Quito", "Tokyo")
KINDS = ("mug", "lamp", "chair", "rug", "clock", "desk")
STATUSES = ("processing", "shipped", "delivered")
ORDERS = tuple(f"O{n}" for n in range(10, 50))
PRODUCTS = tuple(f"P{n}" for n in range(10, 50))
CUSTOMERS = tuple(f"C{n}" for n in range(10, 40))

Row = dict[str, Any]


@dataclass
class Database:
    """Three tables keyed by id. ``faults`` counts how often a read of an order will time out; it is not graded."""

    customers: dict[str, Row] = field(default_factory=dict)
    orders: dict[str, Row] = field(default_factory=dict)
    products: dict[str, Row] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Database":
        """An independent copy."""
        tables = {name: {key: _copy_row(row) for key, row in table.items()} for name, table in self.state().items()}
        return Database(**tables, faults=dict(self.faults))

    def state(self) -> dict[str, dict[str, Row]]:
        """The graded state: every table, without the faults."""
        return {"customers": self.customers, "orders": self.orders, "products": self.products}


def _copy_row(row: Row) -> Row:
    # Rows are flat but for these two columns of plain values; copy.deepcopy takes twenty times as long.
    nested: Row = {column: row[column].copy() for column in ("bought", "items") if column in row}
    return {**row, **nested}


class Drawer:
    """Draws rows with unused ids into a database."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.database = Database()
        self._orders = list(rng.permutation(ORDERS))
        self._products = list(rng.permutation(PRODUCTS))
        self._kinds = list(rng.permutation(KINDS))
        self.max_price = 5  # of an item of an order
        self.city_on_file: dict[str, str] = {}  # as it will be once the requests drawn so far are done

    def choice(self, options: tuple[str, ...]) -> str:
        """One of ``options``, uniformly."""
        return str(options[self.rng.integers(len(options))])

    def city(self, other_than: str) -> str:
        """A city that differs from the given one."""
        return self.choice(tuple(city for city in CITIES if city != other_than))

    def customer(self, customer_id: str) -> str:
        """A new customer with a city on file."""
        self.city_on_file[customer_id] = self.choice(CITIES)
        self.database.customers[customer_id] = {"city": self.city_on_file[customer_id], "bought": []}
        return customer_id

    def order(self, customer: str, status: str, items: int = 1, locked: bool = False) -> str:
        """A new order of ``items`` kinds at prices from 1 to ``max_price``."""
        order_id = str(self._orders.pop())
        kinds = self.rng.permutation(KINDS)[:items]
        prices = {str(kind): int(self.rng.integers(1, 1 + self.max_price)) for kind in kinds}
        self.database.orders[order_id] = {
            "customer": customer,
            "status": status,
            "items": prices,
            "refunded": 0,
            "sent_to": None,
            "locked": locked,
        }
        return order_id

    def product(self, kind: str, price: int, stock: int) -> str:
        """A new product."""
        product_id = str(self._products.pop())
        self.database.products[product_id] = {"kind": kind, "price": price, "stock": stock}
        return product_id

    def fresh_kind(self) -> str:
        """A kind of which there is no product yet."""
        return str(self._kinds.pop())
