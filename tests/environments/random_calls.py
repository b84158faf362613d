"""A policy that knows nothing of the helpdesk but its tools and the ids in its database."""

from collections.abc import Iterator

import numpy as np

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.tools import TOOLS


class RandomCalls:
    """Calls tools at random with ids seen in the shop, then answers at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(self, desk: Desk) -> Iterator[Message]:
        for _ in desk.ticket.requests:
            for number in range(int(self._rng.integers(0, 4))):
                tool = TOOLS[self._rng.integers(len(TOOLS))]
                arguments = {name: self._value(desk, name) for name in tool.parameters["required"]}
                yield Message(
                    role="assistant", tool_calls=(ToolCall(id=f"call_{number}", name=tool.name, arguments=arguments),)
                )
            yield Message(role="assistant", content=("Done.", "It is shipped.", "They cost 9.")[self._rng.integers(3)])

    def _value(self, desk: Desk, name: str) -> str | int:
        database = desk.database
        options: dict[str, list[str]] = {
            "customer_id": list(database.customers),
            "order_id": list(database.orders),
            "product_id": list(database.products) or ["P10"],
            "city": ["Oslo", "Rome", "Lima"],
            "kind": ["mug", "lamp"],
        }
        if name == "amount":
            return int(self._rng.integers(1, 10))
        return options[name][self._rng.integers(len(options[name]))]
