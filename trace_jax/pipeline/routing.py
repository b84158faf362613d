"""Stage 4 of a run: a route table over trained adapters, and the gate if one can be learnt."""

from collections.abc import Callable, Sequence
from pathlib import Path

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.digest import checksum
from trace_jax.contract.files import write_document
from trace_jax.pipeline.gate import learnt_gate
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import save_gate
from trace_jax.routing.gate_training import LabelledPrompt
from trace_jax.routing.load import load_router
from trace_jax.routing.router import Router
from trace_jax.routing.select import make_policy
from trace_jax.routing.table import build_table
from trace_jax.run_settings import RunSettings
from trace_jax.session import Base

ROUTE_TABLE, GATE = "route_table.json", "gate.safetensors"


def make_router(
    adapters: Sequence[AdapterManifest],
    candidates: Sequence[Candidate],
    prompts: Callable[[], Sequence[LabelledPrompt]],
    *,
    settings: RunSettings,
    base: Base,
    directory: Path,
    rollouts: int,
) -> Router:
    """The router over ``adapters``. A table that ``directory`` holds is read, and nothing is trained again.

    A gate is trained on the ``prompts``. Where they are too few, the classifier routes, with a warning in the log.
    ``candidates`` is the dictionary of the analysis. ``rollouts`` is what capabilities and environments took, without
    the adapters.
    """
    routing, reader = settings.routing, PromptReader(base.decoder)
    if not (directory / ROUTE_TABLE).exists():
        table = build_table(
            base.revision,
            routing.router,
            adapters,
            {candidate.name: candidate.description for candidate in candidates},
            minimum_weight=routing.minimum_weight,
            rollouts=rollouts,
        )
        if routing.router == "gate":
            gate = learnt_gate(table, prompts, base, reader, settings.seed)
            if gate is None:
                table = table.replace(router="classifier")
            else:
                save_gate(directory / GATE, gate)
                table = table.replace(gate=GATE, gate_sha256=checksum(directory / GATE).sha256)
        write_document(directory / ROUTE_TABLE, table)
    return load_router(
        directory / ROUTE_TABLE,
        base.revision,
        reader,
        base.renderer,
        make_policy(routing),
        configured=routing.router,
    )
