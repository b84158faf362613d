"""Score a base, adapters and a route table on a target split.

    python -m evaluation.evaluate --config=configs/base.py --config.base.path=MODEL --workdir=OUT \
        --adapters=run/adapters/a/adapter.json,run/adapters/b/adapter.json --route_table=run/routing/route_table.json

The program writes ``trajectories.jsonl`` as episodes end, then ``evaluation.json``, into the work directory. It prints
the table. After an interruption the same command continues.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import cast

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.methods import Evaluation
from evaluation.play import always, play, temperatures
from evaluation.routed import Routing, assign, route_tasks
from evaluation.terminal import print_evaluation
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.routing import RouteTable
from trace_jax.contract.trajectory import Split
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.protocol import Target, Task
from trace_jax.environments.registry import load_target
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.models.lora import LoRA
from trace_jax.program import run
from trace_jax.routing.features import PromptReader
from trace_jax.routing.load import load_router
from trace_jax.routing.select import make_policy
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.session import Base, Manifests, load_adapters, load_base
from trace_jax.telemetry.progress import Progress

REPORT, TRAJECTORIES = "evaluation.json", "trajectories.jsonl"


def score(
    settings: RunSettings, manifests: Manifests, table_path: epath.Path | None, split: Split, workdir: epath.Path
) -> Evaluation:
    """Evaluate the base, every adapter and, if given, the route table, greedily and sampled. Write the files.

    The ``rollouts_spent`` of an adapter are the rollouts of its training. The routed method adds the rollouts that its
    table records; the pipeline records those of analysis and calibration.
    """
    if (workdir / REPORT).exists():
        raise UserError(f"{workdir / REPORT} exists already: choose another --workdir, or move it away")
    target = load_target(settings.target.environment, settings.target.arguments())
    tasks = target_source(target, settings.target.environment, split, settings.target.tasks(split)).tasks
    base = load_base(settings)
    adapters = load_adapters(manifests, base)
    content = {name: _content(lora) for name, lora in adapters.items()}
    spent = {manifest.name: manifest.rollouts for _, manifest in manifests}
    methods = temperatures(settings, "base", always(None), 0)
    methods += [m for name in adapters for m in temperatures(settings, name, always(name), spent[name])]
    if table_path is not None:
        table, routing = _routed(settings, base, adapters, table_path, target, split, tasks)
        total = table.rollouts + sum(spent[route.adapter] for route in table.routes)
        methods += temperatures(settings, "routed", routing.adapter.__getitem__, total)
        adapters |= routing.merged
    open_workdir(
        workdir, {**settings.identity(), "split": split, "base_revision": base.revision, "adapter_contents": content}
    )
    with Progress() as progress:
        evaluation = play(
            settings,
            base,
            target,
            split,
            tasks,
            adapters,
            methods,
            trials=settings.evaluation.trials,
            progress=progress,
            label="evaluate",
            path=workdir / TRAJECTORIES,
            baselines=("base",),
        )
    write_document(workdir / REPORT, evaluation.report)
    return evaluation


def _content(lora: LoRA) -> str:
    """The first 16 hex digits of the SHA-256 of an adapter's weights, a part of the work directory's identity."""
    digest = sha256()
    for leaf in jax.tree.leaves(lora):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _routed(
    settings: RunSettings,
    base: Base,
    adapters: Mapping[str, LoRA],
    path: epath.Path,
    target: Target,
    split: Split,
    tasks: Sequence[Task],
) -> tuple[RouteTable, Routing]:
    """The table, and the adapter that its router chooses for each task."""
    reader, policy = PromptReader(base.decoder), make_policy(settings.routing)
    router = load_router(path, base.revision, reader, base.renderer, policy, configured=settings.routing.router)
    absent = [route.adapter for route in router.table.routes if route.adapter not in adapters]
    if absent:
        raise UserError(f"{path}: routes to {absent[0]!r}, which is not given: add its manifest to --adapters")
    return router.table, assign(route_tasks(router, target, split, tasks), adapters)


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Score the adapters and the route table of the flags."""
    paths = [epath.Path(path) for path in ADAPTERS.value]
    manifests = [(path, read_document(path, AdapterManifest)) for path in paths]
    table = epath.Path(ROUTE_TABLE.value) if ROUTE_TABLE.value else None
    print_evaluation(score(read_settings(config), manifests, table, cast(Split, SPLIT.value), workdir).report)
    print(f"report: {workdir / REPORT}")


if __name__ == "__main__":
    ADAPTERS = flags.DEFINE_list("adapters", [], "adapter manifests (adapter.json), separated by commas")
    ROUTE_TABLE = flags.DEFINE_string("route_table", None, "route table over these adapters")
    SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "tasks to score on")
    run(main)
