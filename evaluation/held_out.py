"""A pipeline run on the held-out tasks: every method side by side, and what the report shows of the way there."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from evaluation.methods import Method, compare, method_result
from evaluation.play import always, play, temperatures
from evaluation.report_data import BudgetPoint, RunSummary
from evaluation.routed import assign, confusion_of, route_tasks
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport, MethodResult
from trace_jax.contract.files import JsonLinesWriter, read_document, write_document
from trace_jax.contract.routing import RouteDecision
from trace_jax.environments.protocol import Labelled, Target
from trace_jax.routing.baselines import OracleRouter, RandomRouter
from trace_jax.routing.router import BASE, Router
from trace_jax.routing.select import choices
from trace_jax.session import Base, load_adapters
from trace_jax.telemetry.progress import Progress
from trace_jax.training.export import MANIFEST

REPORT = "evaluation/report.json"
BASE_METHOD, GRPO, ROUTED, ORACLE, RANDOM = (
    "base",
    "GRPO on target",
    "TRACE (routed)",
    "TRACE (oracle routing)",
    "TRACE (random routing)",
)
BEST_SINGLE = "best single adapter"
BASELINES = (BASE_METHOD, GRPO)


def evaluate_run(
    config: ConfigDict,
    root: Path,
    base: Base,
    target: Target,
    router: Router,
    adapters: Sequence[AdapterManifest],
    baseline: AdapterManifest,
    spent: int,
    progress: Progress,
) -> RunSummary:
    """Play the held-out tasks with every method, write the report and its episodes, and return the summary.

    ``spent``: rollouts that TRACE took; the stage times of the summary are left empty.
    """
    tasks = held_out_tasks(config, target)
    truth = owners(target, tasks, adapters) if isinstance(target, Labelled) else None
    routers: dict[str, Router] = {ROUTED: router, RANDOM: RandomRouter(router.table, config.seed)}
    if truth is not None:
        routers[ORACLE] = OracleRouter(router.table, {str(task): owner for task, owner in truth.items()})
    decisions = {name: route_tasks(one, target, "held_out", tasks) for name, one in routers.items()}
    path = root / "routing" / "decisions.jsonl"
    path.unlink(missing_ok=True)
    with JsonLinesWriter(path) as writer:
        writer.extend(decisions[ROUTED].values())

    paths = [epath.Path(root / "adapters" / adapter.name / MANIFEST) for adapter in adapters]
    place = root / "baselines" / baseline.name
    early = {path: read_document(path, AdapterManifest) for path in sorted(place.glob(f"snapshots/*/{MANIFEST}"))}
    loras = load_adapters(
        [
            *zip(paths, adapters, strict=True),
            (epath.Path(place / MANIFEST), baseline),
            *((epath.Path(path), manifest) for path, manifest in early.items()),
        ],
        base,
    )
    routing = {name: assign(routed, loras) for name, routed in decisions.items()}

    methods = [
        *temperatures(config, BASE_METHOD, always(None), 0),
        *temperatures(config, GRPO, always(baseline.name), baseline.rollouts),
        *(one for a in adapters for one in temperatures(config, f"only {a.name}", always(a.name), spent)),
        *(one for name, r in routing.items() for one in temperatures(config, name, r.adapter.__getitem__, spent)),
    ]
    merged = {name: lora for r in routing.values() for name, lora in r.merged.items()}
    play_tasks = partial(play, config, base, target, "held_out", tasks)
    path, trials = root / "evaluation" / "trajectories.jsonl", config.evaluation.trials
    played = play_tasks({**loras, **merged}, methods, trials, progress, "evaluation", path, BASELINES)
    report = with_best_single(played.report, [f"only {adapter.name}" for adapter in adapters])
    write_document(root / REPORT, report)

    hot = float(config.evaluation.temperature)
    on_the_way = [Method(m.name, hot, always(m.name), m.rollouts) for m in early.values()]
    points = [_point(name, result(report, name, hot)) for name in (BASE_METHOD, GRPO, ROUTED)]
    points += [_point(ROUTED, one) for one in _partial(report, decisions[ROUTED], adapters, spent, hot)]
    if on_the_way:
        path = root / "evaluation" / "on_the_way.jsonl"
        curve = play_tasks(loras, on_the_way, 1, progress, "pass rate by rollouts", path)
        points += [_point(GRPO, one) for one in curve.report.methods]
    return RunSummary(
        title=f"TRACE on {config.target.environment}, seed {config.seed}",
        evaluation=REPORT,
        stage_seconds={},
        confusion=None if truth is None else confusion_of(decisions[ROUTED], truth, choices(router.table)),
        budget=tuple(sorted(points, key=lambda point: (point.method, point.rollouts))),
    )


def held_out_tasks(config: ConfigDict, target: Target) -> tuple[int, ...]:
    """The held-out tasks that the configuration uses."""
    return target.tasks("held_out")[: config.target.held_out_tasks]


def owners(target: Labelled, tasks: Sequence[int], adapters: Sequence[AdapterManifest]) -> dict[int, str]:
    """The adapter of the capability that each task turns on first (``""`` is the base): what an oracle would choose."""
    trained = {capability: adapter.name for adapter in adapters for capability in adapter.capabilities}
    return {task: trained.get(target.turns_on(task), BASE) for task in tasks}


def result(report: EvaluationReport, method: str, temperature: float) -> MethodResult:
    """The row of a method."""
    return next(m for m in report.methods if (m.method, m.temperature) == (method, temperature))


def with_rows(report: EvaluationReport, rows: Sequence[MethodResult], notes: Mapping[str, str]) -> EvaluationReport:
    """The report with more rows, on the same tasks and random numbers; the comparisons are made anew."""
    methods = (*report.methods, *rows)
    return report.replace(methods=methods, comparisons=compare(methods, BASELINES), notes={**report.notes, **notes})


def with_best_single(report: EvaluationReport, singles: Sequence[str]) -> EvaluationReport:
    """Adds the best of the ``singles`` by its sampled pass rate on these very tasks: an upper bound on one adapter."""
    hot = max(m.temperature for m in report.methods)
    best = max(singles, key=lambda name: result(report, name, hot).pass_rate.mean)
    rows = [m.replace(method=BEST_SINGLE) for m in report.methods if m.method == best]
    return with_rows(report, rows, {BEST_SINGLE: f"{best}, chosen by its sampled pass rate on the same tasks"})


def _partial(
    report: EvaluationReport,
    decisions: Mapping[int, RouteDecision],
    adapters: Sequence[AdapterManifest],
    spent: int,
    temperature: float,
) -> list[MethodResult]:
    """TRACE with only the first k adapters trained: tasks that need one of the others stay with the base.

    A lower bound where adapters are merged: a merge with some of its parts missing may do better than the base.
    """
    routed, base = result(report, ROUTED, temperature), result(report, BASE_METHOD, temperature)
    results = []
    for k in range(1, len(adapters)):
        have = {adapter.name for adapter in adapters[:k]}
        cost = spent - sum(adapter.rollouts for adapter in adapters[k:])
        rewards = {
            task: (routed if have.issuperset(decisions[int(task)].adapters) else base).rewards[task]
            for task in report.tasks
        }
        results.append(method_result(ROUTED, temperature, cost, rewards))
    return results


def _point(method: str, one: MethodResult) -> BudgetPoint:
    return BudgetPoint(method=method, temperature=one.temperature, rollouts=one.rollouts_spent, pass_rate=one.pass_rate)
