"""Turns requests into decisions, for routers that read prompts. What cannot be read or scored goes to the base."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.engines.sglang.server import OUTAGES
from trace_jax.errors import TraceError, UserError
from trace_jax.routing.router import RouteRequest
from trace_jax.routing.select import SelectionPolicy, decide, undecided

logger = logging.getLogger(__name__)

Prompt = tuple[int, ...]


def decide_readable(
    requests: Sequence[RouteRequest],
    kind: RouterKind,
    table: RouteTable,
    policy: SelectionPolicy,
    render: Callable[[RouteRequest], Prompt],
    score: Callable[[Sequence[Prompt]], np.ndarray],
) -> list[RouteDecision]:
    """Render each request, score all rendered requests in one batch, and decide each.

    Args:
        score: ``[N, C]`` logits of N prompts, columns as ``choices(table)``.

    A request that cannot be rendered is undecided, and so are all requests of a batch whose forward pass fails (out of
    memory, for example): a fault of the router must not end the conversation. The reason is logged and is part of the
    decision. Bugs of the program (``TypeError`` and the like) are raised, and so are outages of servers (EngineGone,
    ServerFailed), which say nothing about the conversation.
    """
    decisions: dict[int, RouteDecision] = {}
    prompts: dict[int, Prompt] = {}
    for index, request in enumerate(requests):
        try:
            prompts[index] = render(request)
        except UserError as error:
            decisions[index] = _failed(request, kind, f"prompt refused: {error}")
        except ValueError as error:  # the error's text quotes the message, which must not be logged
            decisions[index] = _failed(request, kind, f"prompt refused: {type(error).__name__}")
    if prompts:
        try:
            scores = score(list(prompts.values()))
        except OUTAGES:
            raise
        except (TraceError, RuntimeError) as error:
            decisions |= {index: _failed(requests[index], kind, f"scoring failed: {error}") for index in prompts}
        else:
            for index, row in zip(prompts, scores, strict=True):
                decisions[index] = decide(requests[index].conversation, kind, table, row, policy)
    return [decisions[index] for index in range(len(requests))]


def _failed(request: RouteRequest, kind: RouterKind, why: str) -> RouteDecision:
    reason = " ".join(why.split())
    logger.warning("conversation %s goes to the base: %s", request.conversation, reason)
    return undecided(request.conversation, kind, reason)
