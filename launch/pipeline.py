"""The whole method: failures in, routed adapters out, and what it gained.

    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

Rolls the base out, analyses, synthesises, trains one adapter a capability and the router, trains GRPO on the target
with as many rollouts, evaluates all of them on held-out tasks and writes DIR/report.html. Interrupted, the same command
goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from evaluation.methods import Evaluation, Method, evaluate_methods, plan_episodes
from evaluation.report import write_report
from evaluation.report_data import SUMMARY, BudgetPoint, RunSummary, load_report_data
from evaluation.routed import assign, confusion_of, route_tasks
from evaluation.serving import embedded_engine, limits, load_adapters, load_base
from evaluation.terminal import print_evaluation
from launch.common import run
from trace_jax.analysis.select import Criteria
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.record import ContractError, Record
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.protocol import Target
from trace_jax.environments.registry import load_target
from trace_jax.pipeline import (
    Agent,
    build_router,
    find_capabilities,
    make_environment,
    roll_out,
    train_adapter,
    train_on_target,
)
from trace_jax.rollout.embedded import EmbeddedEngine
from trace_jax.routing.baselines import OracleRouter, RandomRouter
from trace_jax.routing.gate import GateRouter
from trace_jax.routing.router import BASE, Router
from trace_jax.routing.select import choices
from trace_jax.synthesis.embedded import EmbeddedDesigner
from trace_jax.synthesis.stage import SynthesisConfig, rollouts_spent
from trace_jax.telemetry.progress import Progress, Stage
from trace_jax.training.config import GRPOConfig
from trace_jax.training.trainer import MANIFEST, StepReport


class StageTime(Record):
    """How long a stage took; a stage that was interrupted has several."""

    stage: str
    seconds: float


class Clock:
    """Stage times that outlive an interruption."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            with JsonLinesWriter(self._path) as writer:
                writer.append(StageTime(stage=name, seconds=time.monotonic() - started))

    def seconds(self) -> dict[str, float]:
        """Total of each stage, in the order of first use."""
        total: dict[str, float] = {}
        for row in read_records(self._path, StageTime):
            total[row.stage] = total.get(row.stage, 0.0) + row.seconds
        return total


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Run every stage that is not done yet."""
    root = Path(open_workdir(workdir, config.to_dict()))
    clock, progress = Clock(root / "stage_times.jsonl"), Progress()
    target = load_target(config.target.environment)
    base = load_base(config)
    engine = EmbeddedEngine(
        base.decoder,
        base.config,
        base.renderer.stop_token_ids,
        slots=config.engine.slots,
        capacity=config.engine.capacity,
        max_rank=config.training.rank,
        max_adapters=2,
    )
    agent = Agent(
        base.decoder,
        base.revision,
        base.renderer,
        engine,
        limits(config),
        config.rollout.max_turn_tokens,
        config.rollout.concurrency,
    )
    name, designer = config.target.environment, EmbeddedDesigner()
    tasks = target.tasks("train")[: config.target.train_tasks]

    with progress:
        with clock.stage("rollouts of the base"):
            trials, path = config.rollout.trials, root / "base_rollouts.jsonl"
            with progress.stage("rollouts of the base", len(tasks) * trials) as bar:
                rollouts = roll_out(agent, target, name, tasks, trials, config.seed, path, _tick(bar))
        spent = len(rollouts)
        with clock.stage("analysis"):
            analysis = find_capabilities(
                rollouts,
                config.analysis.analyst,
                config.analysis.runs,
                config.seed,
                Criteria(min_support=config.analysis.min_support),
                root / "analysis",
            )
        progress.print("selected: " + (", ".join(one.capability.name for one in analysis.selected) or "nothing"))

        manifests: list[EnvironmentManifest] = []
        with clock.stage("synthesis"):
            settings = SynthesisConfig(
                groups=config.synthesis.calibration_groups,
                group_size=config.synthesis.calibration_group_size,
                rounds=config.synthesis.max_rounds,
                seed=config.seed,
            )
            for one in analysis.selected:
                a_round = settings.groups * settings.group_size
                with progress.stage(f"synthesis of {one.capability.name}", a_round) as bar:
                    made = make_environment(
                        agent, one, designer, name, target, settings, root / "environments", _tick(bar)
                    )
                if isinstance(made, SelectedCapability):
                    _status(root, made)
                    progress.print(f"{one.capability.name} FAILED: {made.reason}")
                else:
                    _status(root, one.replace(status=Status.VALIDATED))
                    manifests.append(made)
        if not manifests:
            raise ContractError(f"{root}: no capability has an environment: see its environments/ and analysis/")
        spent += sum(rollouts_spent(manifest.attempts) for manifest in manifests)
        spent += sum(_lost(root / "environments", one.capability.name) for one in analysis.selected)

        adapters: list[AdapterManifest] = []
        with clock.stage("training of the adapters"):
            for manifest in manifests:
                grpo = _grpo(config, max_steps=config.training.max_steps)
                with _training(progress, manifest.name, grpo.max_steps or 0) as report:
                    directory = root / "adapters" / manifest.name
                    adapters.append(
                        train_adapter(agent, [manifest], manifest.name, grpo, directory, report, **_writers(config))
                    )
                _status(root, _read_status(root, manifest.name).replace(status=Status.TRAINED))
        spent += sum(adapter.rollouts for adapter in adapters)

        with clock.stage("training of the router"):
            router = build_router(
                agent,
                manifests,
                adapters,
                analysis.candidates.all,
                designer,
                target,
                config.routing.prompts,
                config.routing.minimum_weight,
                spent,
                config.seed,
                root / "routing",
            )
            for manifest in manifests:
                _status(root, _read_status(root, manifest.name).replace(status=Status.ROUTED))

        with clock.stage("GRPO on the target"):
            grpo = _grpo(config, max_rollouts=spent, snapshots=(0.25, 0.5, 0.75))
            per_step = grpo.groups_per_step * grpo.num_generations
            with _training(progress, "GRPO on the target", -(-spent // per_step)) as report:
                baseline = train_on_target(
                    agent, target, name, tasks, grpo, root / "baselines" / "grpo_on_target", report, **_writers(config)
                )

        with clock.stage("evaluation"):
            summary = _evaluate(config, root, base, target, router, adapters, baseline, spent, progress)
    times = clock.seconds()
    write_document(root / SUMMARY, summary.replace(stage_seconds=times))
    data = load_report_data(root)
    write_report(data, root / "report.html")
    print_evaluation(data.evaluation)
    print(f"{sum(times.values()):.0f} s in all; TRACE and GRPO spent {spent} rollouts each; see {root / 'report.html'}")


def _evaluate(
    config: ConfigDict,
    root: Path,
    base: Any,
    target: Target,
    router: GateRouter,
    adapters: list[AdapterManifest],
    baseline: AdapterManifest,
    spent: int,
    progress: Progress,
) -> RunSummary:
    tasks = target.tasks("held_out")[: config.target.held_out_tasks]
    by_capability = {adapter.capabilities[0]: adapter.name for adapter in adapters}
    truth = {task: by_capability.get(target.turns_on(task), BASE) for task in tasks}  # type: ignore[attr-defined]
    routers: dict[str, Router] = {
        "TRACE (routed)": router,
        "TRACE (oracle routing)": OracleRouter(router.table, {str(task): truth[task] for task in tasks}),
        "TRACE (random routing)": RandomRouter(router.table, config.seed),
    }
    decisions = {name: route_tasks(one, target, "held_out", tasks) for name, one in routers.items()}
    with JsonLinesWriter(root / "routing" / "decisions.jsonl") as writer:
        writer.extend(decisions["TRACE (routed)"].values())

    manifests = [(epath.Path(root / "adapters" / a.name / MANIFEST), a) for a in adapters]
    manifests.append((epath.Path(root / "baselines" / "grpo_on_target" / MANIFEST), baseline))
    snapshots = sorted((root / "baselines" / "grpo_on_target" / "snapshots").glob(f"*/{MANIFEST}"))
    early = [(epath.Path(path), read_document(path, AdapterManifest)) for path in snapshots]
    loras = load_adapters([*manifests, *early], base)
    assigned = {name: assign(routed, loras) for name, routed in decisions.items()}
    for routing in assigned.values():
        loras |= routing.merged
    engine = embedded_engine(base, loras, config)

    makers: list[tuple[str, Callable[[int], str | None], int]] = [
        ("base", _always(None), 0),
        ("GRPO on target", _always(baseline.name), baseline.rollouts),
        *((f"only {a.name}", _always(a.name), spent) for a in adapters),
        *((name, routing.adapter.__getitem__, spent) for name, routing in assigned.items()),
    ]
    methods = [Method(n, t, pick, cost) for t in (0.0, config.evaluation.temperature) for n, pick, cost in makers]

    def evaluated(methods: list[Method], trials: int, label: str) -> Evaluation:
        with progress.stage(label, len(plan_episodes(methods, tasks, trials))) as bar:
            return evaluate_methods(
                methods,
                target,
                "held_out",
                tasks,
                trials,
                engine,
                base.renderer,
                base.revision,
                limits=limits(config),
                max_tokens=config.rollout.max_turn_tokens,
                seed=config.seed,
                baselines=("base", "GRPO on target"),
                concurrency=config.rollout.concurrency,
                on_episode=_tick(bar),
            )

    result = evaluated(methods, config.evaluation.trials, "evaluation")
    write_document(root / "evaluation" / "report.json", result.report)
    with JsonLinesWriter(root / "evaluation" / "trajectories.jsonl") as writer:
        writer.extend(result.trajectories)

    hot = config.evaluation.temperature
    points = [
        BudgetPoint(method=m.method, temperature=m.temperature, rollouts=m.rollouts_spent, pass_rate=m.pass_rate)
        for m in result.report.methods
        if m.temperature == hot and m.method in ("base", "GRPO on target", "TRACE (routed)")
    ]
    partial = _partial_methods(router, adapters, assigned["TRACE (routed)"].adapter, spent, hot)
    on_the_way = [Method("base", hot, _always(None), 0), Method("GRPO on target", hot, _always(baseline.name), 0)]
    on_the_way += partial
    on_the_way += [Method(f"GRPO@{m.rollouts}", hot, _always(m.name), m.rollouts) for _, m in early]
    curve = evaluated(on_the_way, 1, "pass rate by rollouts")
    for one in curve.report.methods[2:]:
        kind = "GRPO on target" if one.method.startswith("GRPO@") else "TRACE (routed)"
        points.append(
            BudgetPoint(method=kind, temperature=hot, rollouts=one.rollouts_spent, pass_rate=one.pass_rate)
        )
    return RunSummary(
        title=f"TRACE on {config.target.environment}, seed {config.seed}",
        evaluation="evaluation/report.json",
        stage_seconds={},
        confusion=confusion_of(decisions["TRACE (routed)"], truth, choices(router.table)),
        budget=tuple(sorted(points, key=lambda point: (point.method, point.rollouts))),
    )


def _partial_methods(
    router: GateRouter, adapters: list[AdapterManifest], adapter: Any, spent: int, temperature: float
) -> list[Method]:
    """TRACE with only the first k adapters trained: the others' tasks stay with the base."""
    fixed = spent - sum(a.rollouts for a in adapters)
    methods = []
    for k in range(1, len(adapters)):
        have = {a.name for a in adapters[:k]}
        cost = fixed + sum(a.rollouts for a in adapters[:k])

        def pick(task: int, have: set[str] = have) -> str | None:
            return adapter[task] if adapter[task] in have else None

        methods.append(Method(f"TRACE@{k}", temperature, pick, cost))
    return methods


def _always(adapter: str | None) -> Callable[[int], str | None]:
    return lambda _: adapter


def _tick(bar: Stage) -> Callable[[Trajectory], None]:
    def tick(trajectory: Trajectory) -> None:
        usage = trajectory.usage
        bar.advance(reward=trajectory.reward, tokens=usage.prompt_tokens + usage.completion_tokens)

    return tick


@contextmanager
def _training(progress: Progress, name: str, steps: int) -> Iterator[Callable[[StepReport], None]]:
    with progress.stage(f"training {name}", steps) as bar:
        yield lambda report: bar.advance(reward=report.metrics.get("reward/mean"), tokens=report.tokens)


def _grpo(config: ConfigDict, **changes: Any) -> GRPOConfig:
    fields = {**config.training.to_dict(), "max_steps": None, "max_rollouts": None, "seed": config.seed, **changes}
    return GRPOConfig(**fields)


def _writers(config: ConfigDict) -> dict[str, bool]:
    return {"tensorboard": config.telemetry.tensorboard, "wandb": config.telemetry.wandb}


def _status(root: Path, capability: SelectedCapability) -> None:
    write_document(root / "capabilities" / f"{capability.capability.name}.json", capability)


def _read_status(root: Path, name: str) -> SelectedCapability:
    return read_document(root / "capabilities" / f"{name}.json", SelectedCapability)


def _lost(directory: Path, name: str) -> int:
    """Rollouts that a FAILED capability cost, as its reason records them."""
    path = directory / f"{name}.failed.json"
    if not path.exists():
        return 0
    return int(read_document(path, SelectedCapability).reason.rsplit(" rounds, ", 1)[1].split()[0])


if __name__ == "__main__":
    run(main)
