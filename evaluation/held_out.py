"""Evaluates a pipeline run on the held-out tasks: all methods, and the GRPO baseline during its training."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from etils import epath

from evaluation.methods import Method, compare, method_result
from evaluation.play import always, play, temperatures
from evaluation.report_data import BudgetPoint, RunSummary
from evaluation.report_files import read_report, run_files
from evaluation.routed import assign, confusion_of, route_tasks
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport, MethodResult
from trace_jax.contract.files import JsonLinesWriter, read_document, write_document
from trace_jax.contract.routing import RouteDecision
from trace_jax.environments.protocol import Labelled, Target, Task
from trace_jax.environments.source import target_source
from trace_jax.pipeline.method import Pipeline, Trained
from trace_jax.routing.baselines import OracleRouter, RandomRouter
from trace_jax.routing.router import BASE, Router
from trace_jax.routing.select import choices
from trace_jax.run_settings import RunSettings
from trace_jax.session import load_adapters

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

log = logging.getLogger(__name__)


def evaluate_run(
    pipeline: Pipeline,
    trained: Trained,
) -> RunSummary:
    """Play the held-out tasks with every method, write the report and its episodes, and return the summary.

    The stage times of the summary are left empty.
    """
    settings, root, base, target = pipeline.settings, pipeline.root, pipeline.base, pipeline.target
    router, adapters, baseline, spent = trained.router, trained.adapters, trained.baseline, trained.rollouts
    tasks = held_out_tasks(settings, target)
    truth = owners(target, tasks, adapters) if isinstance(target, Labelled) else None
    routers: dict[str, Router] = {ROUTED: router, RANDOM: RandomRouter(router.table, settings.seed)}
    if truth is not None:
        routers[ORACLE] = OracleRouter(router.table, {str(task): owner for task, owner in truth.items()})
    decisions = {name: route_tasks(router, target, "held_out", tasks) for name, router in routers.items()}
    path = root / "routing" / "decisions.jsonl"
    path.unlink(missing_ok=True)
    with JsonLinesWriter(path) as writer:
        writer.extend(decisions[ROUTED].values())

    if (root / REPORT).exists():
        read_report(root / REPORT)  # raises if its episodes were changed
    paths = [epath.Path(root / "adapters" / adapter.name / MANIFEST) for adapter in adapters]
    place = root / "baselines" / baseline.name
    early = snapshots(place, baseline)
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
        *temperatures(settings, BASE_METHOD, always(None), 0),
        *temperatures(settings, GRPO, always(baseline.name), baseline.rollouts),
        *(m for a in adapters for m in temperatures(settings, f"only {a.name}", always(a.name), spent)),
        *(m for name, r in routing.items() for m in temperatures(settings, name, r.adapter.__getitem__, spent)),
    ]
    merged = {name: lora for r in routing.values() for name, lora in r.merged.items()}
    play_tasks = partial(play, settings, base, target, "held_out", tasks, progress=pipeline.progress)
    path, trials = root / "evaluation" / "trajectories.jsonl", settings.evaluation.trials
    played = play_tasks({**loras, **merged}, methods, trials=trials, label="evaluation", path=path, baselines=BASELINES)
    report = with_best_single(played.report, [f"only {adapter.name}" for adapter in adapters])
    write_document(root / REPORT, report)

    hot = settings.evaluation.temperature
    on_the_way = [Method(m.name, hot, always(m.name), m.rollouts) for m in early.values()]
    points = [_point(name, result(report, name, hot)) for name in (BASE_METHOD, GRPO, ROUTED)]
    points += [_point(ROUTED, method) for method in _partial(report, decisions[ROUTED], adapters, spent, hot)]
    if on_the_way:
        path = root / "evaluation" / "on_the_way.jsonl"
        curve = play_tasks(loras, on_the_way, trials=1, label="pass rate by rollouts", path=path)
        points += [_point(GRPO, method) for method in curve.report.methods]
    return RunSummary(
        title=f"TRACE on {pipeline.name}, seed {settings.seed}",
        **run_files(root, REPORT, [*paths, place / MANIFEST]),
        stage_seconds={},
        confusion=None if truth is None else confusion_of(decisions[ROUTED], truth, choices(router.table)),
        budget=tuple(sorted(points, key=lambda point: (point.method, point.rollouts))),
    )


def snapshots(directory: Path, adapter: AdapterManifest) -> dict[Path, AdapterManifest]:
    """Snapshots that the training of ``adapter`` left below ``directory``: path → manifest, fewest rollouts first."""
    found = {}
    for path in sorted(directory.glob(f"snapshots/*/{MANIFEST}")):
        manifest = read_document(path, AdapterManifest)
        if manifest.name == f"{adapter.name}-{path.parent.name}":
            found[path] = manifest
        else:
            log.warning("%s: adapter %s, not a snapshot of %s: left out", path, manifest.name, adapter.name)
    return found


def held_out_tasks(settings: RunSettings, target: Target) -> tuple[Task, ...]:
    """The held-out tasks that the settings use."""
    return target_source(target, settings.target.environment, "held_out", settings.target.held_out_tasks).tasks


def owners(target: Labelled, tasks: Sequence[Task], adapters: Sequence[AdapterManifest]) -> dict[Task, str]:
    """The adapter that an oracle chooses for each task: that of the first capability it needs; ``""`` is the base."""
    trained = {capability: adapter.name for adapter in adapters for capability in adapter.capabilities}
    return {task: trained.get(target.turns_on(task), BASE) for task in tasks}


def result(report: EvaluationReport, method: str, temperature: float) -> MethodResult:
    """The result of a method at a temperature."""
    return next(m for m in report.methods if (m.method, m.temperature) == (method, temperature))


def with_rows(report: EvaluationReport, rows: Sequence[MethodResult], notes: Mapping[str, str]) -> EvaluationReport:
    """The report with further methods, played on the same tasks and random numbers. Comparisons are computed again."""
    methods = (*report.methods, *rows)
    return report.replace(methods=methods, comparisons=compare(methods, BASELINES), notes={**report.notes, **notes})


def with_best_single(report: EvaluationReport, singles: Sequence[str]) -> EvaluationReport:
    """The report with the best of the ``singles`` added, chosen by its sampled pass rate on the same tasks.

    It is an upper bound for a single adapter.
    """
    hot = max(m.temperature for m in report.methods)
    best = max(singles, key=lambda name: result(report, name, hot).pass_rate.mean)
    rows = [m.replace(method=BEST_SINGLE) for m in report.methods if m.method == best]
    return with_rows(report, rows, {BEST_SINGLE: f"{best}, chosen by its sampled pass rate on the same tasks"})


def _partial(
    report: EvaluationReport,
    decisions: Mapping[Task, RouteDecision],
    adapters: Sequence[AdapterManifest],
    spent: int,
    temperature: float,
) -> list[MethodResult]:
    """TRACE with only the first k adapters trained. Tasks that need another adapter are served by the base.

    If adapters are merged this is a lower bound, because a merge without some of its parts may be better than the base.
    """
    routed, base = result(report, ROUTED, temperature), result(report, BASE_METHOD, temperature)
    chosen = {str(task): decision.adapters for task, decision in decisions.items()}
    results = []
    for k in range(1, len(adapters)):
        have = {adapter.name for adapter in adapters[:k]}
        cost = spent - sum(adapter.rollouts for adapter in adapters[k:])
        rewards = {task: (routed if have.issuperset(chosen[task]) else base).rewards[task] for task in report.tasks}
        results.append(method_result(ROUTED, temperature, cost, rewards))
    return results


def _point(name: str, result: MethodResult) -> BudgetPoint:
    return BudgetPoint(
        method=name, temperature=result.temperature, rollouts=result.rollouts_spent, pass_rate=result.pass_rate
    )
