"""Gather before you act: customers return goods, and know neither the order nor how they paid for it.

Capability ``gather_information_before_acting``, in the shapes of τ²-bench retail. The agent has to read the orders:
which of them has the goods and was delivered, the id of the item, and what the order was paid with. An agent that
guesses is refused, or gets a part of the reward for the part that it guessed right.
"""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from trace_jax.environments import kit
from trace_jax.environments.kit import call

TOOLS = r"""
[{"description": "Find user id by first name, last name, and zip code. If the user is not found, the function\n\nwill
  return an error message. By default, find user id by email, and only call this function\nif the user is not found by
  email or cannot remember email.", "name": "find_user_id_by_name_zip", "parameters": {"properties": {"first_name":
  {"description": "The first name of the customer, such as 'John'.", "title": "First Name", "type": "string"},
  "last_name": {"description": "The last name of the customer, such as 'Doe'.", "title": "Last Name", "type":
  "string"}, "zip": {"description": "The zip code of the customer, such as '12345'.", "title": "Zip", "type":
  "string"}}, "required": ["first_name", "last_name", "zip"], "title": "parameters", "type": "object"}},
{"description": "Get the details of a user, including their orders.", "name": "get_user_details", "parameters":
  {"properties": {"user_id": {"description": "The user id, such as 'sara_doe_496'.", "title": "User Id", "type":
  "string"}}, "required": ["user_id"], "title": "parameters", "type": "object"}},
{"description": "Get the status and details of an order.", "name": "get_order_details", "parameters": {"properties":
  {"order_id": {"description": "The order id, such as '#W0000000'. Be careful there is a '#' symbol at the beginning
  of the order id.", "title": "Order Id", "type": "string"}}, "required": ["order_id"], "title": "parameters", "type":
  "object"}},
{"description": "Return some items of a delivered order.\n\nThe order status will be changed to 'return
  requested'.\nThe agent needs to explain the return detail and ask for explicit user confirmation (yes/no) to
  proceed.\nThe user will receive follow-up email for how and where to return the item.", "name":
  "return_delivered_order_items", "parameters": {"properties": {"item_ids": {"description": "The item ids to be
  returned, each such as '1008292230'. There could be duplicate items in the list.", "items": {"type": "string"},
  "title": "Item Ids", "type": "array"}, "order_id": {"description": "The order id, such as '#W0000000'. Be careful
  there is a '#' symbol at the beginning of the order id.", "title": "Order Id", "type": "string"},
  "payment_method_id": {"description": "The payment method id to pay or receive refund for the item price difference,
  such as 'gift_card_0000000' or 'credit_card_0000000'.\nThese can be looked up from the user or order details.",
  "title": "Payment Method Id", "type": "string"}}, "required": ["order_id", "item_ids", "payment_method_id"],
  "title": "parameters", "type": "object"}},
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
# Retail agent policy
Find the user by name and zip code first. Help one user alone, and only with what the policy allows.
Before you change anything, list the details and wait for the user's explicit yes.
Only a delivered order can be returned, as a whole or in part, and only once. The refund goes to the payment method of
the order, or to a gift card of the user. Never make up information: look it up.
Transfer to a human agent only what your tools cannot do.
</policy>"""
FIRST = ("Ava", "Chen", "Fatima", "Ivan", "Lucas", "Mei", "Noah", "Olivia", "Raj", "Sofia", "Yara", "Yusuf")
LAST = ("Ahmed", "Brown", "Garcia", "Ito", "Johnson", "Kim", "Li", "Lopez", "Patel", "Rossi", "Silva", "Smith")
GOODS = ["Backpack", "Bookshelf", "Desk Lamp", "Gaming Mouse", "Garden Hose", "Grill", "Headphones", "Office Chair"]
GOODS += ["Perfume", "Pet Bed", "Skateboard", "Smart Watch", "Sunglasses", "Tea Kettle", "Wall Clock", "Yoga Mat"]
EMPTY = ["cancel_reason", "exchange_items", "exchange_new_items", "exchange_payment_method_id"]
EMPTY += ["exchange_price_difference", "return_items", "return_payment_method_id"]
Record = dict[str, Any]


@dataclass
class Shop:
    users: dict[str, Record]
    orders: dict[str, Record]
    transfers: int = 0

    @kit.tool
    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find the id of a user."""
        for key, user in self.users.items():
            if (first_name, last_name, zip) == (*user["name"].values(), user["address"]["zip"]):
                return key
        raise kit.ToolError("User not found")

    @kit.tool
    def get_user_details(self, user_id: str) -> Record:
        """Get a user."""
        if user_id not in self.users:
            raise kit.ToolError("User not found")
        return self.users[user_id]

    @kit.tool
    def get_order_details(self, order_id: str) -> Record:
        """Get an order."""
        if order_id not in self.orders:
            raise kit.ToolError("Order not found")
        return self.orders[order_id]

    @kit.tool
    def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Record:
        """Return items of a delivered order."""
        order = self.get_order_details(order_id)
        if order["status"] != "delivered":
            raise kit.ToolError("Non-delivered order cannot be returned")
        if payment_method_id not in self.users[order["user_id"]]["payment_methods"]:
            raise kit.ToolError("Payment method not found")
        if payment_method_id != paid_with(order) and "gift_card" not in payment_method_id:
            raise kit.ToolError("Payment method should be the original payment method")
        if not set(item_ids) <= {item["item_id"] for item in order["items"]} or len(set(item_ids)) < len(item_ids):
            raise kit.ToolError("Some item not found")
        order |= {"status": "return requested", "return_items": sorted(item_ids)}
        order["return_payment_method_id"] = payment_method_id
        return order

    @kit.tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the user."""
        self.transfers += 1
        return "Transfer successful"


class GatherBeforeReturn(kit.Exercise[Shop]):
    """The user returns one item of each of ``returns`` orders, of ``orders`` in all.

    With ``twins`` = 1, goods of the same names are in an order that cannot be returned.
    """

    name, policy, state_type, tools = "gather_before_return", POLICY, Shop, kit.offered(TOOLS)

    def __init__(self, orders: int = 4, returns: int = 1, twins: int = 1, contrast_every: int = 0) -> None:
        self.orders, self.returns, self.twins, self.contrast_every = orders, returns, twins, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Shop]:
        shop, hello, looks, delivered = self.opened(rng)
        wanted = [(order, rng.choice(order["items"])) for order in delivered]
        looks += [call("get_user_details", user_id=next(iter(shop.users)))]
        looks += [call("get_order_details", order_id=key) for key in shop.orders]
        text = f"{hello} I want to return the {' and the '.join(item['name'] for _, item in wanted)}. I have no order "
        text += "number any more. Please send the money back to where it came from."
        return asked(shop, kit.Request(text, tuple(looks)), wanted)

    def draw_routine(self, rng: Random) -> kit.Scenario[Shop]:
        shop, hello, looks, (order, *_) = self.opened(rng)
        item = rng.choice(order["items"])
        text = f"{hello} Please return item {item['item_id']}, the {item['name']}, of order {order['order_id']}, "
        text += f"and refund it to {paid_with(order)}."
        looks += [call("get_order_details", order_id=order["order_id"])]
        return asked(shop, kit.Request(text, tuple(looks)), [(order, item)])

    def opened(self, rng: Random) -> tuple[Shop, str, list[Any], list[Record]]:
        """A shop, how its user begins, the call that finds the user, and the orders to return something of."""
        first, last, zip_code = rng.choice(FIRST), rng.choice(LAST), digits(rng, 5)
        user_id = f"{first}_{last}_{digits(rng, 4)}".lower()
        methods = {key: f"{key}_{digits(rng, 7)}" for key in ("credit_card", "paypal", "gift_card")}
        details: dict[str, Record] = {
            "credit_card": {"brand": "visa", "last_four": digits(rng, 4)},
            "gift_card": {"balance": 10.0},
        }
        address = {"address1": f"{digits(rng, 3)} Elm Street", "address2": f"Suite {digits(rng, 3)}", "city": "Denver"}
        address |= {"country": "USA", "state": "CO", "zip": zip_code}
        names = rng.sample(GOODS, 3 * self.orders)
        if self.twins:
            names[3 * self.returns : 3 * self.returns + 3] = names[:3]
        statuses = ["delivered"] * self.returns + ["pending"] * (self.orders > self.returns)
        statuses += rng.choices(["delivered", "pending", "processed"], k=self.orders - len(statuses))
        orders = []
        for number, status in enumerate(statuses):
            items = [thing(rng, name) for name in names[3 * number : 3 * number + 3]]
            order: Record = {"order_id": f"#W{digits(rng, 7)}", "user_id": user_id, "address": address, "items": items}
            sent = {"tracking_id": [digits(rng, 12)], "item_ids": [item["item_id"] for item in items]}
            paid = {"transaction_type": "payment", "amount": round(sum(item["price"] for item in items), 2)}
            paid |= {"payment_method_id": rng.choice(list(methods.values()))}
            order |= {
                "status": status,
                "fulfillments": [] if status == "pending" else [sent],
                "payment_history": [paid],
            }
            orders.append(order | dict.fromkeys(EMPTY))
        delivered = orders[: self.returns]
        rng.shuffle(orders)
        user: Record = {"user_id": user_id, "name": {"first_name": first, "last_name": last}, "address": address}
        user |= {"email": f"{first}.{last}{digits(rng, 4)}@example.com".lower()}
        user["orders"] = [order["order_id"] for order in orders]
        user["payment_methods"] = {key: {"source": k, "id": key, **details.get(k, {})} for k, key in methods.items()}
        found = call("find_user_id_by_name_zip", first_name=first, last_name=last, zip=zip_code)
        hello = f"Hi, I am {first} {last}, zip code {zip_code}."
        return Shop({user_id: user}, {order["order_id"]: order for order in orders}), hello, [found], delivered

    def hint(self) -> str:
        return (
            "Read the user's profile, then every order in it with get_order_details, until you know which delivered "
            "order holds the goods. The order's payment_history names the payment method to refund."
        )

    def tool_text(self, result: Any) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"


def asked(shop: Shop, first: kit.Request, wanted: list[tuple[Record, Record]]) -> kit.Scenario[Shop]:
    """The scenario of a first request, which is done once the user has said yes."""
    scenario = kit.Scenario(shop)
    scenario.add(first)
    acts = [
        call(
            "return_delivered_order_items",
            order_id=order["order_id"],
            item_ids=[item["item_id"]],
            payment_method_id=paid_with(order),
        )
        for order, item in wanted
    ]
    scenario.add(kit.Request("Yes, please go ahead.", tuple(acts)))
    return scenario


def paid_with(order: Record) -> str:
    return str(order["payment_history"][0]["payment_method_id"])


def digits(rng: Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count))


def thing(rng: Random, name: str) -> Record:
    item = {"name": name, "product_id": digits(rng, 10), "item_id": digits(rng, 10)}
    return item | {
        "price": rng.randrange(2000, 30000) / 100,
        "options": {"color": rng.choice(["black", "blue", "red"])},
    }
