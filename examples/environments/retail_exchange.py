"""Finish a transaction of several steps: a user thinks of more to exchange, and the order takes one exchange alone.

Capability ``collect_all_steps_before_committing``, in the shapes of τ²-bench retail. The policy wants the details
listed and confirmed first. An agent that exchanges at once finds the order closed when the user goes on: it gets a part
of the reward for what is right in the order.
"""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from trace_jax.environments import kit
from trace_jax.environments.kit import call

TOOLS = r"""
[{"description": "Find user id by email. If the user is not found, the function will return an error message.",
  "name": "find_user_id_by_email", "parameters": {"properties": {"email": {"description": "The email of the user, such
  as 'something@example.com'.", "title": "Email", "type": "string"}}, "required": ["email"], "title": "parameters",
  "type": "object"}},
{"description": "Get the status and details of an order.", "name": "get_order_details", "parameters": {"properties":
  {"order_id": {"description": "The order id, such as '#W0000000'. Be careful there is a '#' symbol at the beginning
  of the order id.", "title": "Order Id", "type": "string"}}, "required": ["order_id"], "title": "parameters", "type":
  "object"}},
{"description": "Get the inventory details of a product.", "name": "get_product_details", "parameters": {"properties":
  {"product_id": {"description": "The product id, such as '6086499569'. Be careful the product id is different from
  the item id.", "title": "Product Id", "type": "string"}}, "required": ["product_id"], "title": "parameters", "type":
  "object"}},
{"description": "Exchange items in a delivered order to new items of the same product type.\n\nFor a delivered order,
  return or exchange can be only done once by the agent.\nThe agent needs to explain the exchange detail and ask for
  explicit user confirmation (yes/no) to proceed.", "name": "exchange_delivered_order_items", "parameters":
  {"properties": {"item_ids": {"description": "The item ids to be exchanged, each such as '1008292230'. There could be
  duplicate items in the list.", "items": {"type": "string"}, "title": "Item Ids", "type": "array"}, "new_item_ids":
  {"description": "The item ids to be exchanged for, each such as '1008292230'.\nThere could be duplicate items in the
  list. Each new item id should match the item id\nin the same position and be of the same product.", "items":
  {"type": "string"}, "title": "New Item Ids", "type": "array"}, "order_id": {"description": "The order id, such as
  '#W0000000'. Be careful there is a '#' symbol at the beginning of the order id.", "title": "Order Id", "type":
  "string"}, "payment_method_id": {"description": "The payment method id to pay or receive refund for the item price
  difference,\nsuch as 'gift_card_0000000' or 'credit_card_0000000'. These can be looked up\nfrom the user or order
  details.", "title": "Payment Method Id", "type": "string"}}, "required": ["order_id", "item_ids", "new_item_ids",
  "payment_method_id"], "title": "parameters", "type": "object"}},
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
Find the user by email first. Help one user alone, and only with what the policy allows.
Before you change anything, list the details and wait for the user's explicit yes.
A delivered order can be exchanged once: each item for an available item of the same product with other options. Remind
the user to name all items to be exchanged before you make the call, since no other call for the order will follow.
The difference in price is paid or refunded with one payment method of the user.
Transfer to a human agent only what your tools cannot do.
</policy>"""
FIRST = ("ava", "chen", "fatima", "ivan", "lucas", "mei", "noah", "olivia", "raj", "sofia", "yara", "yusuf")
LAST = ("ahmed", "brown", "garcia", "ito", "johnson", "kim", "li", "lopez", "patel", "rossi", "silva", "smith")
GOODS = ("Backpack", "Desk Lamp", "Gaming Mouse", "Headphones", "Office Chair", "Skateboard", "Tea Kettle", "Yoga Mat")
COLORS, SIZES = ("black", "blue", "green", "red", "white"), ("small", "medium", "large")
EMPTY = ["cancel_reason", "exchange_items", "exchange_new_items", "exchange_payment_method_id"]
EMPTY += ["exchange_price_difference", "return_items", "return_payment_method_id"]
LATER = ("Wait, I also want the {} of that order in {}, {}.", "One more: the {} should become the {}, {} one.")
Record = dict[str, Any]


@dataclass
class Shop:
    users: dict[str, Record]
    orders: dict[str, Record]
    products: dict[str, Record]
    transfers: int = 0

    @kit.tool
    def find_user_id_by_email(self, email: str) -> str:
        """Find the id of a user."""
        for key, user in self.users.items():
            if user["email"] == email.lower():
                return key
        raise kit.ToolError("User not found")

    @kit.tool
    def get_order_details(self, order_id: str) -> Record:
        """Get an order."""
        if order_id not in self.orders:
            raise kit.ToolError("Order not found")
        return self.orders[order_id]

    @kit.tool
    def get_product_details(self, product_id: str) -> Record:
        """Get a product."""
        if product_id not in self.products:
            raise kit.ToolError("Product not found")
        return self.products[product_id]

    @kit.tool
    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Exchange items of a delivered order."""
        order = self.get_order_details(order_id)
        if order["status"] != "delivered":
            raise kit.ToolError("Non-delivered order cannot be exchanged")
        if len(item_ids) != len(new_item_ids):
            raise kit.ToolError("The number of items to be exchanged should match.")
        bought, difference = {item["item_id"]: item for item in order["items"]}, 0.0
        for old, new in zip(item_ids, new_item_ids, strict=True):
            if old not in bought or item_ids.count(old) > 1:
                raise kit.ToolError(f"Number of {old} not found.")
            variants = self.products[bought[old]["product_id"]]["variants"]
            if new not in variants:
                raise kit.ToolError("Variant not found")
            if not variants[new]["available"]:
                raise kit.ToolError(f"New item {new} not found or available")
            difference += variants[new]["price"] - bought[old]["price"]
        if payment_method_id not in self.users[order["user_id"]]["payment_methods"]:
            raise kit.ToolError("Payment method not found")
        order |= {"status": "exchange requested", "exchange_price_difference": round(difference, 2)}
        order |= {"exchange_items": sorted(item_ids), "exchange_new_items": sorted(new_item_ids)}
        order["exchange_payment_method_id"] = payment_method_id
        return order

    @kit.tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the user."""
        self.transfers += 1
        return "Transfer successful"


class CollectBeforeExchange(kit.Exercise[Shop]):
    """The user exchanges an item, and then ``later`` more of the same order, before they say yes.

    ``variants`` is how many there are of each product.
    """

    name, policy, state_type, tools = "collect_before_exchange", POLICY, Shop, kit.offered(TOOLS)

    def __init__(self, later: int = 1, variants: int = 5, contrast_every: int = 0) -> None:
        self.later, self.variants, self.contrast_every = later, variants, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Shop]:
        return self.episode(rng, 1 + self.later)

    def draw_routine(self, rng: Random) -> kit.Scenario[Shop]:
        return self.episode(rng, 1)

    def episode(self, rng: Random, items: int) -> kit.Scenario[Shop]:
        """The user exchanges ``items`` items of an order, which they name one after the other."""
        shop, (order, *_) = self.shop(rng, items + 1)
        user, paid = shop.users[order["user_id"]], order["payment_history"][0]["payment_method_id"]
        wanted = []
        for item in rng.sample(order["items"], items):
            variants = shop.products[item["product_id"]]["variants"].values()
            others = [each for each in variants if each["available"] and each["item_id"] != item["item_id"]]
            wanted.append((item, rng.choice(others)))
        (item, new), *rest = wanted
        text = f"Hello, my email is {user['email']}. I would like to exchange the {item['name']} of order "
        text += f"{order['order_id']} for the {new['options']['color']}, {new['options']['size']} one, on my {paid}."
        scenario = kit.Scenario(shop)
        looks = [call("find_user_id_by_email", email=user["email"])]
        looks += [call("get_order_details", order_id=order["order_id"])]
        scenario.add(kit.Request(text, (*looks, call("get_product_details", product_id=item["product_id"]))))
        for number, (item, new) in enumerate(rest):
            said = LATER[number % 2].format(item["name"], new["options"]["color"], new["options"]["size"])
            scenario.add(kit.Request(said, (call("get_product_details", product_id=item["product_id"]),)))
        act = call(
            "exchange_delivered_order_items",
            order_id=order["order_id"],
            item_ids=[item["item_id"] for item, _ in wanted],
            new_item_ids=[new["item_id"] for _, new in wanted],
            payment_method_id=paid,
        )
        scenario.add(kit.Request("That is all. Yes, please go ahead.", (act,)))
        return scenario

    def shop(self, rng: Random, items: int) -> tuple[Shop, list[Record]]:
        """A shop, and two delivered orders of its user, of ``items`` items each."""
        first, last = rng.choice(FIRST), rng.choice(LAST)
        user_id, card = f"{first}_{last}_{digits(rng, 4)}", f"credit_card_{digits(rng, 7)}"
        address = {"address1": "77 Elm Street", "address2": "Flat 5", "city": "Denver", "country": "USA", "state": "CO"}
        address |= {"zip": digits(rng, 5)}
        products = [self.product(rng, name) for name in rng.sample(GOODS, items)]
        orders = []
        for _ in range(2):
            bought = [(product, rng.choice(list(product["variants"].values()))) for product in products]
            goods = [
                {"name": product["name"], "product_id": product["product_id"]}
                | {key: variant[key] for key in ("item_id", "price", "options")}
                for product, variant in bought
            ]
            order: Record = {"order_id": f"#W{digits(rng, 7)}", "user_id": user_id, "address": address, "items": goods}
            sent = {"tracking_id": [digits(rng, 12)], "item_ids": [item["item_id"] for item in goods]}
            paid = {"transaction_type": "payment", "amount": round(sum(item["price"] for item in goods), 2)}
            order |= {
                "status": "delivered",
                "fulfillments": [sent],
                "payment_history": [{**paid, "payment_method_id": card}],
            }
            orders.append(order | dict.fromkeys(EMPTY))
        user: Record = {"user_id": user_id, "name": {"first_name": first.title(), "last_name": last.title()}}
        user |= {"address": address, "email": f"{first}.{last}{digits(rng, 2)}@example.com"}
        user["payment_methods"] = {card: {"source": "credit_card", "id": card, "brand": "visa", "last_four": card[-4:]}}
        user["orders"] = [order["order_id"] for order in orders]
        by_id = {product["product_id"]: product for product in products}
        return Shop({user_id: user}, {order["order_id"]: order for order in orders}, by_id), orders

    def product(self, rng: Random, name: str) -> Record:
        """A product, of which two variants at least are available."""
        options = rng.sample([(color, size) for color in COLORS for size in SIZES], self.variants)
        variants = {
            (key := digits(rng, 10)): {
                "item_id": key,
                "options": {"color": color, "size": size},
                "available": number < 3 or rng.random() < 0.5,
                "price": rng.randrange(2000, 30000) / 100,
            }
            for number, (color, size) in enumerate(options)
        }
        return {"name": name, "product_id": digits(rng, 10), "variants": variants}

    def hint(self) -> str:
        return (
            "An order can be exchanged once. Do not call exchange_delivered_order_items before the user has named all "
            "items and said yes. Then make one call that holds every item."
        )

    def tool_text(self, result: Any) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"


def digits(rng: Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count))
