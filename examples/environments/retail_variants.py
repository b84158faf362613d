"""Read what a tool returns exactly: of many variants that look alike, one is what the user wants.

Capability ``read_tool_output_exactly``, in the shapes of τ²-bench retail. The user changes an item of a pending order
to the cheapest, or the dearest, available variant with some option, and asks for the difference in price. Another
variant earns a part: the order takes one change alone.
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
{"description": "Get the status and details of an order.", "name": "get_order_details", "parameters": {"properties":
  {"order_id": {"description": "The order id, such as '#W0000000'. Be careful there is a '#' symbol at the beginning
  of the order id.", "title": "Order Id", "type": "string"}}, "required": ["order_id"], "title": "parameters", "type":
  "object"}},
{"description": "Get the inventory details of a product.", "name": "get_product_details", "parameters": {"properties":
  {"product_id": {"description": "The product id, such as '6086499569'. Be careful the product id is different from
  the item id.", "title": "Product Id", "type": "string"}}, "required": ["product_id"], "title": "parameters", "type":
  "object"}},
{"description": "Modify items in a pending order to new items of the same product type. For a pending order, this
  function can only be called once. The agent needs to explain the exchange detail and ask for explicit user
  confirmation (yes/no) to proceed.", "name": "modify_pending_order_items", "parameters": {"properties": {"item_ids":
  {"description": "The item ids to be modified, each such as '1008292230'. There could be duplicate items in the
  list.", "items": {"type": "string"}, "title": "Item Ids", "type": "array"}, "new_item_ids": {"description": "The
  item ids to be modified for, each such as '1008292230'. There could be duplicate items in the list. Each new item id
  should match the item id in the same position and be of the same product.", "items": {"type": "string"}, "title":
  "New Item Ids", "type": "array"}, "order_id": {"description": "The order id, such as '#W0000000'. Be careful there
  is a '#' symbol at the beginning of the order id.", "title": "Order Id", "type": "string"}, "payment_method_id":
  {"description": "The payment method id to pay or receive refund for the item price difference, such as
  'gift_card_0000000' or 'credit_card_0000000'. These can be looked up from the user or order details.", "title":
  "Payment Method Id", "type": "string"}}, "required": ["order_id", "item_ids", "new_item_ids", "payment_method_id"],
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
The items of a pending order can be changed once, each to an available item of the same product with other options. The
difference in price is paid or refunded with one payment method of the user.
Do not make anything up: say what the tools say, with cents. Transfer to a human agent only what your tools cannot do.
</policy>"""
FIRST = ("Ava", "Chen", "Fatima", "Ivan", "Lucas", "Mei", "Noah", "Olivia", "Raj", "Sofia", "Yara", "Yusuf")
LAST = ("Ahmed", "Brown", "Garcia", "Ito", "Johnson", "Kim", "Li", "Lopez", "Patel", "Rossi", "Silva", "Smith")
GOODS = ("Backpack", "Desk Lamp", "Gaming Mouse", "Headphones", "Office Chair", "Skateboard", "Tea Kettle", "Yoga Mat")
OPTIONS = {"color": ("black", "blue", "red"), "size": ("small", "medium", "large"), "material": ("steel", "wood")}
EMPTY = ["cancel_reason", "exchange_items", "exchange_new_items", "exchange_payment_method_id"]
EMPTY += ["exchange_price_difference", "return_items", "return_payment_method_id"]
Record = dict[str, Any]


@dataclass
class Shop:
    users: dict[str, Record]
    orders: dict[str, Record]
    products: dict[str, Record]
    transfers: int = 0

    @kit.tool
    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find the id of a user."""
        for key, user in self.users.items():
            if (first_name, last_name, zip) == (*user["name"].values(), user["address"]["zip"]):
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
    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Change items of a pending order."""
        order = self.get_order_details(order_id)
        if order["status"] != "pending":
            raise kit.ToolError("Non-pending order cannot be modified")
        if len(item_ids) != len(new_item_ids):
            raise kit.ToolError("The number of items to be exchanged should match")
        items, changed, difference = {item["item_id"]: item for item in order["items"]}, {}, 0.0
        for old, new in zip(item_ids, new_item_ids, strict=True):
            if old not in items or old in changed:
                raise kit.ToolError(f"{old} not found")
            variant = self.products[items[old]["product_id"]]["variants"].get(new)
            if variant is None or not variant["available"]:
                raise kit.ToolError(f"New item {new} not found or available")
            changed[old] = items[old] | {key: variant[key] for key in ("item_id", "price", "options")}
            difference += variant["price"] - items[old]["price"]
        if payment_method_id not in self.users[order["user_id"]]["payment_methods"]:
            raise kit.ToolError("Payment method not found")
        paid = {"transaction_type": "payment" if difference > 0 else "refund", "amount": round(abs(difference), 2)}
        order["payment_history"].append(paid | {"payment_method_id": payment_method_id})
        order["items"] = [changed.get(item["item_id"], item) for item in order["items"]]
        order["status"] = "pending (item modified)"
        return order

    @kit.tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the user."""
        self.transfers += 1
        return "Transfer successful"


class ReadVariantsExactly(kit.Exercise[Shop]):
    """The user changes ``items`` items of an order. Each product has ``variants`` variants, from 6 to 18."""

    name, policy, state_type, tools = "read_variants_exactly", POLICY, Shop, kit.offered(TOOLS)

    def __init__(self, items: int = 1, variants: int = 10, contrast_every: int = 0) -> None:
        self.items, self.variants, self.contrast_every = items, variants, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Shop]:
        shop, order = self.shop(rng)
        return asked(shop, order, [(item, *self.choice(shop, item, rng)) for item in order["items"][: self.items]])

    def draw_routine(self, rng: Random) -> kit.Scenario[Shop]:
        shop, order = self.shop(rng)
        new, _ = self.choice(shop, order["items"][0], rng)
        return asked(shop, order, [(order["items"][0], new, f"the one with item id {new['item_id']}")])

    def choice(self, shop: Shop, item: Record, rng: Random) -> tuple[Record, str]:
        """A variant to have in place of ``item``, and how the user names it."""
        variants = shop.products[item["product_id"]]["variants"].values()
        others = [each for each in variants if each["available"] and each["item_id"] != item["item_id"]]
        option = rng.choice(list(OPTIONS))
        value = rng.choice(sorted({each["options"][option] for each in others}))
        word = rng.choice(["cheapest", "most expensive"])
        fitting = sorted((each["price"], each["item_id"]) for each in others if each["options"][option] == value)
        _, key = fitting[0 if word == "cheapest" else -1]
        found: Record = shop.products[item["product_id"]]["variants"][key]
        return found, f"the {word} available one of {option} {value}"

    def shop(self, rng: Random) -> tuple[Shop, Record]:
        """A shop, and the pending order of its user."""
        first, last, card = rng.choice(FIRST), rng.choice(LAST), f"credit_card_{digits(rng, 7)}"
        user_id = f"{first}_{last}_{digits(rng, 4)}".lower()
        address = {"address1": "77 Elm Street", "address2": "Flat 5", "city": "Denver", "country": "USA", "state": "CO"}
        address |= {"zip": digits(rng, 5)}
        products = {(made := self.product(rng, name))["product_id"]: made for name in rng.sample(GOODS, self.items + 1)}
        items = []
        for key, product in products.items():
            variant = rng.choice(list(product["variants"].values()))
            bought = {each: variant[each] for each in ("item_id", "price", "options")}
            items.append({"name": product["name"], "product_id": key} | bought)
        order: Record = {"order_id": f"#W{digits(rng, 7)}", "user_id": user_id, "address": address, "items": items}
        paid = {"transaction_type": "payment", "amount": round(sum(item["price"] for item in items), 2)}
        order |= {"status": "pending", "fulfillments": [], "payment_history": [paid | {"payment_method_id": card}]}
        order |= dict.fromkeys(EMPTY)
        user: Record = {"user_id": user_id, "name": {"first_name": first, "last_name": last}, "address": address}
        user |= {"email": f"{first}.{last}{digits(rng, 4)}@example.com".lower(), "orders": [order["order_id"]]}
        user["payment_methods"] = {card: {"source": "credit_card", "id": card, "brand": "visa", "last_four": card[-4:]}}
        return Shop({user_id: user}, {order["order_id"]: order}, products), order

    def product(self, rng: Random, name: str) -> Record:
        """A product. No two of its prices are the same, and most variants are available."""
        colors, sizes, materials = OPTIONS.values()
        every = [(color, size, material) for color in colors for size in sizes for material in materials]
        prices = rng.sample(range(10000, 14900), self.variants)
        variants = {}
        for number, (values, price) in enumerate(zip(rng.sample(every, self.variants), prices, strict=True)):
            key, options = digits(rng, 10), dict(zip(OPTIONS, values, strict=True))
            available = number < 3 or rng.random() < 0.6
            variants[key] = {"item_id": key, "options": options, "available": available, "price": price / 100}
        return {"name": name, "product_id": digits(rng, 10), "variants": variants}

    def hint(self) -> str:
        return (
            "Go through the variants one by one. Leave out those with available false or another option than the user "
            "names, and then compare the prices. The difference is the new price less the price in the order."
        )

    def tool_text(self, result: Any) -> str:
        return result if isinstance(result, str) else json.dumps(result)

    def error_text(self, problem: str) -> str:
        return f"Error: {problem}"


def asked(shop: Shop, order: Record, wanted: list[tuple[Record, Record, str]]) -> kit.Scenario[Shop]:
    """The user wants the first of each of ``wanted`` changed to the second, which they name as the third says."""
    ((user_id, user),) = shop.users.items()
    who = {**user["name"], "zip": user["address"]["zip"]}
    card = order["payment_history"][0]["payment_method_id"]
    text = f"Hi, I am {' '.join(user['name'].values())}, zip code {who['zip']}. In order {order['order_id']} I want "
    text += " and ".join(f"{how} in place of the {item['name']}" for item, _, how in wanted)
    text += f", on {card}. What is the difference in price to what I have?"
    difference = sum(new["price"] - item["price"] for item, new, _ in wanted)
    looks = [call("find_user_id_by_name_zip", **who), call("get_order_details", order_id=order["order_id"])]
    looks += [call("get_product_details", product_id=item["product_id"]) for item, _, _ in wanted]
    scenario = kit.Scenario(shop)
    scenario.add(kit.Request(text, tuple(looks), (f"{abs(difference):.2f}",)))
    act = call(
        "modify_pending_order_items",
        order_id=order["order_id"],
        item_ids=[item["item_id"] for item, _, _ in wanted],
        new_item_ids=[new["item_id"] for _, new, _ in wanted],
        payment_method_id=card,
    )
    scenario.add(kit.Request("Yes, please change that.", (act,)))
    return scenario


def digits(rng: Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count))
