"""A copy of the shop shares nothing with the shop."""

import copy

import numpy as np

from trace_jax.environments.helpdesk.database import Drawer


def test_a_copy_is_deep():
    drawer = Drawer(np.random.default_rng(3))
    order = drawer.order(drawer.customer("C10"), "shipped")
    product = drawer.product("rug", 5, 2)
    drawer.database.faults[order] = 1
    before, found = copy.deepcopy(drawer.database), drawer.database.copy()
    assert found == before
    found.customers["C10"]["bought"].append(product)
    found.orders[order]["items"].clear()
    found.products[product]["stock"] = 0
    found.faults[order] = 0
    assert drawer.database == before
