"""A gate where the environments can teach one."""

import logging
from collections.abc import Callable, Sequence

from trace_jax.contract.routing import RouteTable
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import Gate
from trace_jax.routing.gate_training import LabelledPrompt, TooFewPrompts, train_gate
from trace_jax.routing.select import choices
from trace_jax.session import Base

log = logging.getLogger(__name__)


def learnt_gate(
    table: RouteTable, prompts: Callable[[], Sequence[LabelledPrompt]], base: Base, reader: PromptReader, seed: int
) -> Gate | None:
    """A gate that chooses among the routes of ``table``; None, with a warning, where there are too few prompts."""
    try:
        gate, _ = train_gate(prompts(), choices(table), base.revision, reader, base.renderer, seed)
    except TooFewPrompts as error:
        log.warning("no gate can be trained (%s): the classifier routes", error)
        return None
    return gate
