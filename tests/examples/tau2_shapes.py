"""Writes the tools of τ²-bench airline and retail that the example environments have, and the schemas of their results.

In a Python that has the package (``tests/targets/tau2-no-deps.txt``, ``tau2.txt``), from the root of the repository:

PYTHONPATH=.:tests/targets python tests/examples/tau2_shapes.py > tests/examples/fixtures/tau2_shapes.json
"""

import json
import sys

import without_faces  # noqa: F401

from trace_jax.targets.tau2_bench import PACKAGE, Tau2Bench

LICENCE = "MIT License, Copyright (c) 2025 Sierra Research: see LICENSE.tau2-bench"
TOOLS = {
    "airline": "book_reservation calculate cancel_reservation get_flight_status get_reservation_details "
    "get_user_details search_direct_flight transfer_to_human_agents",
    "retail": "exchange_delivered_order_items find_user_id_by_email find_user_id_by_name_zip get_order_details "
    "get_product_details get_user_details modify_pending_order_items return_delivered_order_items "
    "transfer_to_human_agents",
}


def shapes(domain: str) -> dict:
    """Tools and schemas of results of a domain."""
    target, names = Tau2Bench(domain, user="gold"), TOOLS[domain].split()
    tools = [tool.model_dump() for tool in target.environment("train").tools if tool.name in names]
    return {"tools": tools, "results": {name: target.results[name] for name in names}}


def written(found: dict) -> str:
    """The file: one line for each tool and each schema."""
    text = json.dumps({"source": f"{PACKAGE.distribution} {PACKAGE.version}", "licence": LICENCE})[:-1]
    for domain, each in found.items():
        tools = ",\n  ".join(json.dumps(tool) for tool in each["tools"])
        results = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in each["results"].items())
        text += f',\n "{domain}": {{"tools": [\n  {tools}\n ], "results": {{\n  {results}\n }}}}'
    return text + "}\n"


if __name__ == "__main__":
    sys.stdout.write(written({domain: shapes(domain) for domain in TOOLS}))
