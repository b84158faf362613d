"""Where the gain comes from: a finished pipeline run again with one part replaced.

    python -m launch.ablations --config=configs/quickstart.py --run=runs/quickstart --workdir=runs/ablations

Trains one adapter on the mixture of the run's environments, one adapter for each of as many capabilities drawn at
random from the analysis' dictionary, and GRPO on the target at other learning rates; evaluates them beside the run's
own methods (routing by gate, oracle and chance among them), on the same tasks and random numbers. Interrupted, the same
command goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import GRPO, REPORT, held_out_tasks, result, with_rows
from evaluation.methods import Method
from evaluation.play import always, play, temperatures
from evaluation.report_data import SUMMARY, RunSummary
from evaluation.routed import assign, route_tasks
from evaluation.terminal import print_evaluation
from launch.stages import Stages, open_run
from trace_jax.analysis.stage import CANDIDATES
from trace_jax.analysis.stage import REPORT as ANALYSIS_REPORT
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Candidates, CapabilityReport, SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, write_document
from trace_jax.program import run
from trace_jax.routing.router import Router
from trace_jax.session import load_adapters, load_base
from trace_jax.training.export import MANIFEST

Trained = tuple[Path, AdapterManifest]  # where an adapter lies, and its manifest
RATES = (0.5, 2.0)  # learning rates of GRPO on the target, as multiples of the run's


@dataclass(frozen=True)
class Arm:
    """One method of the comparison. Without a router its one adapter takes every task, or the base if it has none."""

    name: str
    rollouts: int
    adapters: tuple[Trained, ...]
    router: Router | None = None


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Train and evaluate what the run in --run did not."""
    finished = Path(RUN.value)
    summary = read_document(finished / SUMMARY, RunSummary)
    report = read_document(finished / summary.evaluation, EvaluationReport)
    open_run(epath.Path(finished), config, load_base(config))  # is it of this configuration and base?
    stages = Stages(config, workdir)
    with stages.progress:
        arms = [
            mixture(stages, finished),
            random_capabilities(stages, finished),
            *other_rates(stages, result(report, GRPO, 0.0).rollouts_spent),
        ]
        tasks = held_out_tasks(config, stages.target)
        trained = {manifest.name: (epath.Path(path), manifest) for arm in arms for path, manifest in arm.adapters}
        loras = load_adapters(list(trained.values()), stages.base)
        methods: list[Method] = []
        for arm in arms:
            if arm.router is None:
                adapter_for = always(arm.adapters[0][1].name if arm.adapters else None)
            else:
                routing = assign(route_tasks(arm.router, stages.target, "held_out", tasks), loras)
                loras |= routing.merged
                adapter_for = routing.adapter.__getitem__
            methods += temperatures(config, arm.name, adapter_for, arm.rollouts)
        with stages.clock.stage("evaluation"):
            played = play(
                config,
                stages.base,
                stages.target,
                "held_out",
                tasks,
                loras,
                methods,
                config.evaluation.trials,
                stages.progress,
                "evaluation",
                stages.root / "evaluation" / "trajectories.jsonl",
            )
    report = beside(report, played.report)
    write_document(stages.root / REPORT, report)
    print_evaluation(report)
    print(f"report: {stages.root / REPORT}")


def beside(report: EvaluationReport, added: EvaluationReport) -> EvaluationReport:
    """The run's report with the arms' rows, and what to be wary of in them."""
    warnings = {name: note for name, note in added.notes.items() if name.startswith("broken:")}
    return with_rows(report, added.methods, warnings)


def mixture(stages: Stages, finished: Path) -> Arm:
    """One adapter on all of the run's environments, with as many rollouts as the run's adapters had together.

    It has spent what TRACE has before the training: what went into capabilities that FAILED as well.
    """
    trained = specialists(finished).values()
    manifests = [manifest for manifest, _ in trained]
    rollouts = sum(one.rollouts for _, (_, one) in trained)
    adapter = stages.train_adapter("mixture", manifests, finished / "environments", rollouts)
    found = [read_document(path, SelectedCapability) for path in sorted((finished / "capabilities").glob("*.json"))]
    lost = sum(one.rollouts for one in found if one.status is Status.FAILED)
    spent = stages.analysed + lost + sum(manifest.rollouts for manifest in manifests) + adapter.rollouts
    return Arm("one adapter on the mixture", spent, ((stages.root / "adapters" / "mixture" / MANIFEST, adapter),))


def other_rates(stages: Stages, rollouts: int) -> Iterator[Arm]:
    """GRPO on the target with other learning rates."""
    for factor in RATES:
        rate = factor * stages.config.training.learning_rate
        name = f"grpo_{rate:g}"
        adapter = stages.train_on_target(rollouts, name, learning_rate=rate)
        path = stages.root / "baselines" / name / MANIFEST
        yield Arm(f"{GRPO}, learning rate {rate:g}", adapter.rollouts, ((path, adapter),))


def random_capabilities(stages: Stages, finished: Path) -> Arm:
    """As many capabilities as were selected, drawn from the dictionary; adapters that the run has are used again."""
    found = read_document(finished / "analysis" / ANALYSIS_REPORT, AnalysisReport)
    candidates = read_document(finished / "analysis" / CANDIDATES, Candidates)
    selected = [one for one in found.capabilities if one.selected and not one.distractor]
    drawn = draw(found.capabilities, len(selected), stages.config.seed)
    stages.progress.print(f"drawn at random: {', '.join(one.capability.name for one in drawn)}")
    have = specialists(finished)
    spent, manifests, adapters = stages.analysed, [], []
    for rank, one in enumerate(drawn, start=1):
        name = one.capability.name
        if name in have:
            manifest, (path, adapter) = have[name]
        else:
            made = stages.make_environment(
                SelectedCapability(
                    capability=one.capability, rank=rank, coverage=one.coverage, delta=one.delta, failed_examples=()
                )
            )
            if isinstance(made, SelectedCapability):
                spent += made.rollouts
                continue
            manifest, adapter = made, stages.train_adapter(name, [made])
            path = stages.root / "adapters" / name / MANIFEST
        manifests.append(manifest)
        adapters.append((path, adapter))
        spent += manifest.rollouts
    router = None
    if adapters:
        router = stages.train_router(manifests, [adapter for _, adapter in adapters], candidates.all, spent)
    spent += sum(adapter.rollouts for _, adapter in adapters)
    return Arm("random capabilities (routed)", spent, tuple(adapters), router)


def draw(capabilities: Sequence[CapabilityReport], number: int, seed: int) -> list[CapabilityReport]:
    """``number`` capabilities of the dictionary, distractors included, whatever the analysis said of them."""
    by_name = sorted(capabilities, key=lambda one: one.capability.name)
    chosen = np.random.default_rng(seed).choice(len(by_name), number, replace=False)
    return [by_name[i] for i in chosen]


def specialists(finished: Path) -> dict[str, tuple[EnvironmentManifest, Trained]]:
    """The run's environments and adapters by capability."""
    found = {}
    for path in sorted((finished / "adapters").glob(f"*/{MANIFEST}")):
        adapter = read_document(path, AdapterManifest)
        manifest = read_document(finished / "environments" / f"{adapter.name}.json", EnvironmentManifest)
        found[manifest.capability] = (manifest, (path, adapter))
    return found


if __name__ == "__main__":
    RUN = flags.DEFINE_string("run", None, "work directory of the finished pipeline run", required=True)
    run(main)
