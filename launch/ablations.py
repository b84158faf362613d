"""Where the gain comes from: a finished pipeline run again with one part replaced.

    python -m launch.ablations --config=configs/quickstart.py --run=runs/quickstart --workdir=runs/ablations

Trains one adapter on the mixture of the run's environments, and one adapter for each of as many capabilities drawn at
random from the analysis' dictionary; evaluates both beside the run's own methods (routing by gate, oracle and chance
among them), on the same tasks and random numbers. Interrupted, the same command goes on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import REPORT, always, held_out_tasks, play, temperatures, with_rows
from evaluation.report_data import SUMMARY, RunSummary
from evaluation.routed import assign, route_tasks
from evaluation.serving import load_adapters
from evaluation.terminal import print_evaluation
from launch.common import run
from launch.stages import Stages
from trace_jax.analysis.stage import CANDIDATES
from trace_jax.analysis.stage import REPORT as ANALYSIS_REPORT
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Candidates, CapabilityReport, SelectedCapability
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.workdir import open_workdir
from trace_jax.training.trainer import MANIFEST

MIXTURE, RANDOM = "one adapter on the mixture", "random capabilities (routed)"


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Train and evaluate what the run in --run did not."""
    finished = Path(RUN.value)
    summary = read_document(finished / SUMMARY, RunSummary)  # before the next line, which would make a new directory
    open_workdir(finished, config.to_dict())
    root = Path(open_workdir(workdir, config.to_dict()))
    report = read_document(finished / summary.evaluation, EvaluationReport)
    candidates = read_document(finished / "analysis" / CANDIDATES, Candidates)
    found = read_document(finished / "analysis" / ANALYSIS_REPORT, AnalysisReport)
    trained = _trained(finished)
    stages = Stages(config, root)
    analysed = config.rollout.trials * len(stages.tasks)
    with stages.progress:
        manifests = [manifest for manifest, _, _ in trained.values()]
        mixture = stages.train_adapter("mixture", manifests)
        paths = {mixture.name: root / "adapters" / "mixture" / MANIFEST}
        cost = analysed + sum(manifest.rollouts for manifest in manifests) + mixture.rollouts
        methods = temperatures(config, MIXTURE, always(mixture.name), cost)
        adapters = [mixture]

        drawn = draw(found.capabilities, sum(one.selected for one in found.capabilities), config.seed)
        stages.progress.print(f"drawn at random: {', '.join(one.capability.name for one in drawn)}")
        cost, environments, specialists = analysed, [], []
        for rank, one in enumerate(drawn, start=1):
            name = one.capability.name
            if name in trained:
                manifest, adapter, paths[name] = trained[name]
            else:
                made = stages.make_environment(_as_selected(one, rank))
                cost += made.rollouts if isinstance(made, SelectedCapability) else 0
                if isinstance(made, SelectedCapability):
                    continue
                manifest, adapter = made, stages.train_adapter(name, [made])
                paths[name] = root / "adapters" / name / MANIFEST
            environments.append(manifest)
            specialists.append(adapter)
            cost += manifest.rollouts + adapter.rollouts
        adapters += specialists
        loras = load_adapters([(epath.Path(paths[adapter.name]), adapter) for adapter in adapters], stages.base)
        if specialists:
            router = stages.train_router(environments, specialists, candidates.all, cost)
            tasks = held_out_tasks(config, stages.target)
            routing = assign(route_tasks(router, stages.target, "held_out", tasks), loras)
            loras |= routing.merged
            methods += temperatures(config, RANDOM, routing.adapter.__getitem__, cost)
        else:
            methods += temperatures(config, RANDOM, always(None), cost)
        with stages.clock.stage("evaluation"):
            trials = config.evaluation.trials
            path = root / "evaluation" / "trajectories.jsonl"
            played = play(
                config, stages.base, stages.target, loras, methods, trials, stages.progress, "evaluation", path, ()
            )
    notes = {RANDOM: f"drew {', '.join(one.capability.name for one in drawn)}; trained {len(specialists)} of them"}
    report = with_rows(report, played.report.methods, notes)
    write_document(root / REPORT, report)
    print_evaluation(report)
    print(f"report: {root / REPORT}")


def draw(capabilities: Sequence[CapabilityReport], number: int, seed: int) -> list[CapabilityReport]:
    """``number`` capabilities of the dictionary, distractors included, whatever the analysis said of them."""
    by_name = sorted(capabilities, key=lambda one: one.capability.name)
    chosen = np.random.default_rng(seed).choice(len(by_name), number, replace=False)
    return [by_name[i] for i in chosen]


def _trained(finished: Path) -> dict[str, tuple[EnvironmentManifest, AdapterManifest, Path]]:
    """The run's environments and adapters by capability."""
    trained = {}
    for path in sorted((finished / "adapters").glob(f"*/{MANIFEST}")):
        adapter = read_document(path, AdapterManifest)
        manifest = read_document(finished / "environments" / f"{adapter.name}.json", EnvironmentManifest)
        trained[manifest.capability] = (manifest, adapter, path)
    return trained


def _as_selected(one: CapabilityReport, rank: int) -> SelectedCapability:
    return SelectedCapability(
        capability=one.capability, rank=rank, coverage=one.coverage, delta=one.delta, failed_examples=()
    )


if __name__ == "__main__":
    RUN = flags.DEFINE_string("run", None, "work directory of the finished pipeline run", required=True)
    run(main)
