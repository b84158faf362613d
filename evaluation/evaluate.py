"""Score a base, adapters and a route table on a target split.

    python -m evaluation.evaluate --config=configs/base.py --config.base.path=MODEL --workdir=OUT \
        --adapters=run/adapters/a/adapter.json,run/adapters/b/adapter.json --route_table=run/routing/table.json

Writes ``evaluation.json`` and ``trajectories.jsonl`` into the work directory and prints the table.
"""

from typing import cast

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.methods import Evaluation, Method, evaluate_methods, plan_episodes
from evaluation.routed import assign, route_tasks
from evaluation.serving import Base, Manifests, embedded_engine, limits, load_adapters, load_base
from evaluation.terminal import print_evaluation
from launch.common import run
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import append_records, read_document, write_document
from trace_jax.contract.record import ContractError
from trace_jax.contract.routing import RouteTable
from trace_jax.contract.trajectory import Split
from trace_jax.environments.protocol import Target
from trace_jax.environments.registry import load_target
from trace_jax.models.lora import LoRA
from trace_jax.routing.features import PromptReader
from trace_jax.routing.load import load_router
from trace_jax.routing.select import make_policy
from trace_jax.routing.table import check_base
from trace_jax.telemetry.progress import Progress

REPORT, TRAJECTORIES = "evaluation.json", "trajectories.jsonl"


def score(
    config: ConfigDict, manifests: Manifests, table_path: epath.Path | None, split: Split, workdir: epath.Path
) -> Evaluation:
    """Evaluate base, every adapter and, if given, the route table, greedily and sampled; write the files.

    The routed method's ``rollouts_spent`` are those of its adapters and of its table; what analysis and calibration
    spent stands in the pipeline's own report.
    """
    if (workdir / REPORT).exists():
        raise ContractError(f"{workdir / REPORT} exists already: choose another --workdir, or move it away")
    target = load_target(config.target.environment)
    tasks = target.tasks(split)
    base = load_base(config)
    adapters = load_adapters(manifests, base)
    spent = {manifest.name: manifest.rollouts for _, manifest in manifests}
    methods = [_method("base", None, 0)] + [_method(name, name, spent[name]) for name in adapters]
    if table_path is not None:
        routed, merged = _routed(config, base, adapters, spent, table_path, target, split, tasks)
        methods.append(routed)
        adapters |= merged
    both = [
        Method(m.name, temperature, m.adapter_for, m.rollouts_spent)
        for temperature in dict.fromkeys((0.0, float(config.evaluation.temperature)))
        for m in methods
    ]
    episodes = len(plan_episodes(both, tasks, config.evaluation.trials))
    with Progress() as progress, progress.stage("evaluate", total=episodes) as stage:
        evaluation = evaluate_methods(
            both,
            target,
            split,
            tasks,
            config.evaluation.trials,
            embedded_engine(base, adapters, config),
            base.renderer,
            base.revision,
            limits=limits(config),
            max_tokens=config.rollout.max_turn_tokens,
            seed=config.seed,
            baselines=("base",),
            concurrency=config.rollout.concurrency,
            on_episode=stage.episode,
        )
    append_records(workdir / TRAJECTORIES, evaluation.trajectories)
    write_document(workdir / REPORT, evaluation.report)
    return evaluation


def _method(name: str, adapter: str | None, spent: int) -> Method:
    return Method(name, 0.0, lambda task: adapter, spent)


def _routed(
    config: ConfigDict,
    base: Base,
    adapters: dict[str, LoRA],
    spent: dict[str, int],
    path: epath.Path,
    target: Target,
    split: Split,
    tasks: tuple[int, ...],
) -> tuple[Method, dict[str, LoRA]]:
    """The routed method, and the merged adapters that it needs."""
    table = read_document(path, RouteTable)
    check_base(table, base.revision)
    absent = [route.adapter for route in table.routes if route.adapter not in adapters]
    if absent:
        raise ContractError(f"{path}: routes to {absent[0]!r}, which is not given: add its manifest to --adapters")
    reader = PromptReader(base.decoder, base.config.max_position_embeddings)
    router = load_router(path, base.revision, reader, base.renderer, make_policy(config.routing.top_p))
    routing = assign(route_tasks(router, target, split, tasks), adapters)
    total = table.rollouts + sum(spent[route.adapter] for route in table.routes)
    return Method("routed", 0.0, routing.adapter.__getitem__, total), dict(routing.merged)


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Score what the flags name."""
    paths = [epath.Path(path) for path in ADAPTERS.value]
    manifests = [(path, read_document(path, AdapterManifest)) for path in paths]
    table = epath.Path(ROUTE_TABLE.value) if ROUTE_TABLE.value else None
    print_evaluation(score(config, manifests, table, cast(Split, SPLIT.value), workdir).report)
    print(f"report: {workdir / REPORT}")


if __name__ == "__main__":
    ADAPTERS = flags.DEFINE_list("adapters", [], "adapter manifests (adapter.json), separated by commas")
    ROUTE_TABLE = flags.DEFINE_string("route_table", None, "route table over these adapters")
    SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "tasks to score on")
    run(main)
