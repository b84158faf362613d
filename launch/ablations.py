"""Ablations: repeats a finished pipeline run with one part replaced, to show where the gain comes from.

    python -m launch.ablations --config=configs/quickstart.py --run=runs/quickstart --workdir=runs/ablations

The program trains three kinds of adapters: one adapter on the mixture of the run's environments; one adapter for each
of several random capabilities from the analysis' dictionary, as many as the run selected; and GRPO on the target at
other learning rates. It evaluates them on the same tasks and random numbers as the run's own methods, and reports both.
After an interruption the same command continues.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import GRPO, REPORT, held_out_source, result, with_rows
from evaluation.methods import Method
from evaluation.play import always, play, temperatures
from evaluation.report_data import SUMMARY, RunSummary
from evaluation.report_files import read_named, read_report
from evaluation.routed import assign, route_tasks
from evaluation.terminal import print_evaluation
from trace_jax.analysis.stage import CANDIDATES
from trace_jax.analysis.stage import REPORT as ANALYSIS_REPORT
from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Candidates, CapabilityReport, SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, write_document
from trace_jax.pipeline.checks import open_run
from trace_jax.pipeline.environments import check_postponed
from trace_jax.pipeline.method import Pipeline
from trace_jax.program import run
from trace_jax.routing.router import Router
from trace_jax.run_settings import read_settings
from trace_jax.session import load_adapters, load_base

Trained = tuple[Path, AdapterManifest]  # the path of a manifest, and the manifest
RATES = (0.5, 2.0)  # learning rates of GRPO on the target, as multiples of the run's


@dataclass(frozen=True)
class Arm:
    """One method of the comparison. Without a router its only adapter serves all tasks, or the base if it has none."""

    name: str
    rollouts: int
    adapters: tuple[Trained, ...]
    router: Router | None = None


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Train and evaluate the arms that the run in --run does not contain."""
    finished = Path(RUN.value)
    summary = read_document(finished / SUMMARY, RunSummary)
    report = read_report(read_named(epath.Path(finished), summary.evaluation, finished / SUMMARY))
    settings = read_settings(config)
    open_run(epath.Path(finished), settings, load_base(settings))  # raises for a run of other settings or another base
    pipeline = Pipeline(settings, workdir)
    with pipeline.progress:
        arms = [
            mixture(pipeline, finished),
            random_capabilities(pipeline, finished),
            *other_rates(pipeline, result(report, GRPO, 0.0).rollouts_spent),
        ]
        source = held_out_source(settings, pipeline.target)
        trained = {manifest.name: (epath.Path(path), manifest) for arm in arms for path, manifest in arm.adapters}
        loras = load_adapters(list(trained.values()), pipeline.base)
        methods: list[Method] = []
        for arm in arms:
            if arm.router is None:
                adapter_for = always(arm.adapters[0][1].name if arm.adapters else None)
            else:
                routing = assign(route_tasks(arm.router, source), loras)
                loras |= routing.merged
                adapter_for = routing.adapter.__getitem__
            methods += temperatures(settings, arm.name, adapter_for, arm.rollouts)
        with pipeline.times.stage("evaluation"):
            played = play(
                settings,
                pipeline.base,
                source,
                loras,
                methods,
                trials=settings.evaluation.trials,
                progress=pipeline.progress,
                label="evaluation",
                path=pipeline.root / "evaluation" / "trajectories.jsonl",
            )
    report = with_arms(report, played.report)
    write_document(pipeline.root / REPORT, report)
    print_evaluation(report)
    print(f"report: {pipeline.root / REPORT}")


def with_arms(report: EvaluationReport, added: EvaluationReport) -> EvaluationReport:
    """The run's report with the rows of the arms, and with the warnings about their broken episodes."""
    warnings = {name: note for name, note in added.notes.items() if name.startswith("broken:")}
    return with_rows(report, added.methods, warnings).replace(episodes=added.episodes)


def mixture(pipeline: Pipeline, finished: Path) -> Arm:
    """One adapter on all of the run's environments, with as many rollouts as the run's adapters had together.

    Its ``spent`` includes all rollouts that TRACE uses before training, those for capabilities that FAILED among them.
    """
    trained = specialists(finished).values()
    manifests = [manifest for manifest, _ in trained]
    rollouts = sum(adapter.rollouts for _, (_, adapter) in trained)
    adapter = pipeline.train_adapter("mixture", manifests, finished / "environments", rollouts)
    analysis = read_document(finished / "analysis" / ANALYSIS_REPORT, AnalysisReport)
    names = [report.capability.name for report in analysis.capabilities if report.selected]
    paths = [path for name in names if (path := finished / "capabilities" / f"{name}.json").exists()]
    found = [read_document(path, SelectedCapability) for path in paths]
    lost = sum(capability.rollouts for capability in found if capability.status is Status.FAILED)
    spent = pipeline.rollouts_analysed + lost + sum(manifest.rollouts for manifest in manifests) + adapter.rollouts
    return Arm("one adapter on the mixture", spent, ((pipeline.root / "adapters" / "mixture" / MANIFEST, adapter),))


def other_rates(pipeline: Pipeline, rollouts: int) -> Iterator[Arm]:
    """GRPO on the target with other learning rates."""
    for factor in RATES:
        rate = factor * pipeline.settings.training.learning_rate
        name = f"grpo_{rate:g}"
        adapter = pipeline.train_on_target(rollouts, name, learning_rate=rate)
        path = pipeline.root / "baselines" / name / MANIFEST
        yield Arm(f"{GRPO}, learning rate {rate:g}", adapter.rollouts, ((path, adapter),))


def random_capabilities(pipeline: Pipeline, finished: Path) -> Arm:
    """Capabilities drawn from the dictionary, as many as the run selected. Adapters that the run has are used again."""
    found = read_document(finished / "analysis" / ANALYSIS_REPORT, AnalysisReport)
    candidates = read_document(finished / "analysis" / CANDIDATES, Candidates)
    selected = [report for report in found.capabilities if report.selected and not report.distractor]
    drawn = draw(found.capabilities, len(selected), pipeline.settings.seed)
    pipeline.progress.print(f"drawn at random: {', '.join(report.capability.name for report in drawn)}")
    have = specialists(finished)
    spent, manifests, adapters = pipeline.rollouts_analysed, [], []
    for rank, report in enumerate(drawn, start=1):
        name = report.capability.name
        if name in have:
            manifest, (path, adapter) = have[name]
        else:
            made = pipeline.make_environment(
                SelectedCapability(
                    capability=report.capability,
                    rank=rank,
                    coverage=report.coverage,
                    delta=report.delta,
                    failed_examples=(),
                )
            )
            check_postponed([made])
            if not isinstance(made, EnvironmentManifest):
                spent += made.rollouts
                continue
            manifest, adapter = made, pipeline.train_adapter(name, [made])
            path = pipeline.root / "adapters" / name / MANIFEST
        manifests.append(manifest)
        adapters.append((path, adapter))
        spent += manifest.rollouts
    router = None
    if adapters:
        router = pipeline.train_router(manifests, [adapter for _, adapter in adapters], candidates.all, spent)
    spent += sum(adapter.rollouts for _, adapter in adapters)
    return Arm("random capabilities (routed)", spent, tuple(adapters), router)


def draw(capabilities: Sequence[CapabilityReport], number: int, seed: int) -> list[CapabilityReport]:
    """``number`` random capabilities of the dictionary, distractors included, without regard to the analysis."""
    by_name = sorted(capabilities, key=lambda report: report.capability.name)
    chosen = np.random.default_rng(seed).choice(len(by_name), number, replace=False)
    return [by_name[i] for i in chosen]


def specialists(finished: Path) -> dict[str, tuple[EnvironmentManifest, Trained]]:
    """Environments and adapters that the run's summary names, by capability. The baseline is left out."""
    summary, root = finished / SUMMARY, epath.Path(finished)
    found = {}
    for reference in read_document(summary, RunSummary).adapters:
        path = Path(read_named(root, reference, summary))
        adapter = read_document(path, AdapterManifest)
        if not adapter.capabilities:
            continue
        manifest = read_document(finished / "environments" / f"{adapter.name}.json", EnvironmentManifest)
        found[manifest.capability] = (manifest, (path, adapter))
    return found


if __name__ == "__main__":
    RUN = flags.DEFINE_string("run", None, "work directory of the finished pipeline run", required=True)
    run(main)
