"""The shop: customers, orders and products, drawn from a random generator, and the tools of the desk."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict, get_args

import numpy as np
from pydantic import Field

from trace_jax.environments.kit import ToolError, look_up, tool

CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Paris", "Delhi", "Quito", "Tokyo")
KindName = Literal["mug", "lamp", "chair", "rug", "clock", "desk"]
KINDS: tuple[str, ...] = get_args(KindName)
STATUSES = ("processing", "shipped", "delivered")
ORDERS = tuple(f"O{n}" for n in range(10, 50))
PRODUCTS = tuple(f"P{n}" for n in range(10, 50))
CUSTOMERS = tuple(f"C{n}" for n in range(10, 40))

Row = dict[str, Any]

# What the tools take and return, as the agent is told.
CustomerId = Annotated[str, Field(description="A customer, such as C17")]
OrderId = Annotated[str, Field(description="An order, such as O41")]
ProductId = Annotated[str, Field(description="A product, such as P23")]
City = Annotated[str, Field(description="Name of a city")]
Kind = Annotated[KindName, Field(description="Kind of product")]
Amount = Annotated[int, Field(ge=1, description="Amount in whole dollars")]
Count = Annotated[int, Field(ge=0)]


class Done(TypedDict):
    ok: Literal[True]


class Customer(TypedDict):
    city: str


Status = Literal["processing", "shipped", "delivered", "cancelled"]


class Order(TypedDict):
    status: Status
    items: dict[KindName, Count]


class Product(TypedDict):
    price: Count
    id: str
    stock: Count


@dataclass
class Database:
    """Three tables keyed by id, with the tools that read and change them.

    ``faults`` counts how often a read of an order will time out; it is not graded.
    """

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

    @tool
    def get_customer(self, customer_id: CustomerId) -> Customer:
        """Look a customer up: the city on file."""
        return {"city": look_up(self.customers, customer_id, "customer")["city"]}

    @tool
    def get_order(self, order_id: OrderId) -> Order:
        """Look an order up: its status and the price of each item."""
        order = look_up(self.orders, order_id, "order")
        if self.faults.get(order_id, 0) > 0:
            self.faults[order_id] -= 1
            raise ToolError("timeout, try again")
        return {"status": order["status"], "items": order["items"]}

    @tool
    def search_products(self, kind: Kind) -> list[Product]:
        """List products of a kind with price and stock, cheapest first."""
        return [
            {"price": row["price"], "id": key, "stock": row["stock"]}
            for key, row in sorted(self.products.items(), key=lambda item: (item[1]["price"], item[0]))
            if row["kind"] == kind
        ]

    @tool
    def cancel_order(self, order_id: OrderId) -> Done:
        """Cancel an order."""
        self._writable(order_id)["status"] = "cancelled"
        return {"ok": True}

    @tool
    def refund(self, order_id: OrderId, amount: Amount) -> Done:
        """Refund an amount on an order."""
        self._writable(order_id)["refunded"] += amount
        return {"ok": True}

    @tool
    def resend_order(self, order_id: OrderId, city: City) -> Done:
        """Send an order once more, to a city."""
        self._writable(order_id)["sent_to"] = city
        return {"ok": True}

    @tool
    def place_order(self, customer_id: CustomerId, product_id: ProductId) -> Done:
        """Order one piece of a product for a customer."""
        customer = look_up(self.customers, customer_id, "customer")
        product = look_up(self.products, product_id, "product")
        if product["stock"] == 0:
            raise ToolError(f"{product_id} is out of stock")
        product["stock"] -= 1
        customer["bought"].append(product_id)
        return {"ok": True}

    @tool
    def set_city(self, customer_id: CustomerId, city: City) -> Done:
        """Change the city on file of a customer."""
        look_up(self.customers, customer_id, "customer")["city"] = city
        return {"ok": True}

    @tool
    def unlock_order(self, order_id: OrderId) -> Done:
        """Unlock a locked order, so that it can be changed."""
        look_up(self.orders, order_id, "order")["locked"] = False
        return {"ok": True}

    def _writable(self, order_id: str) -> Row:
        order = look_up(self.orders, order_id, "order")
        if order["locked"]:
            raise ToolError(f"{order_id} is locked")
        return order


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
