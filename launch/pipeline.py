"""The whole method: failures in, routed adapters out, and what it gained.

    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

Rolls the base out, analyses, synthesises, trains one adapter a capability and the router, trains GRPO on the target
with as many rollouts, evaluates all of them on held-out tasks and writes DIR/report.html. Interrupted, the same command
goes on. With --verify it runs nothing, and checks what is in DIR (see launch.verify).
"""

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import evaluate_run
from evaluation.report import write_report
from evaluation.report_data import SUMMARY, load_report_data
from evaluation.terminal import print_evaluation
from launch.stages import Stages
from launch.verify import check
from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.files import write_document
from trace_jax.errors import UserError
from trace_jax.program import run

VERIFY = flags.DEFINE_bool("verify", False, "check every file of the work directory, and run nothing")


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Run every stage that is not done yet."""
    if VERIFY.value:
        check(workdir)
        return
    stages = Stages(config, workdir)
    root = stages.root
    if not (root / SUMMARY).exists():
        run_stages(stages)
    data = load_report_data(root)
    write_report(data, root / "report.html")
    print_evaluation(data.evaluation)
    print(f"{sum(data.stage_seconds.values()):.0f} s in all; see {root / 'report.html'}")


def run_stages(stages: Stages) -> None:
    """Every stage in order; the summary is written last."""
    config, root = stages.config, stages.root
    with stages.progress:
        analysis, spent = stages.find_capabilities(), stages.analysed
        names = ", ".join(one.capability.name for one in analysis.selected)
        stages.progress.print(f"selected: {names or 'nothing'}")

        selected, manifests = [], []
        for one in analysis.selected:
            made = stages.make_environment(one)
            spent += made.rollouts
            if not isinstance(made, SelectedCapability):
                selected.append(one)
                manifests.append(made)
        if not manifests:
            raise UserError(f"{root}: no capability has an environment: see its environments/ and analysis/")

        adapters = []
        for one, manifest in zip(selected, manifests, strict=True):
            adapters.append(stages.train_adapter(manifest.name, [manifest]))
            stages.keep_status(one, Status.TRAINED)
        router = stages.train_router(manifests, adapters, analysis.candidates.all, spent)
        spent += sum(adapter.rollouts for adapter in adapters)
        for one in selected:
            stages.keep_status(one, Status.ROUTED)

        baseline = stages.train_on_target(spent, snapshots=(0.25, 0.5, 0.75))
        with stages.clock.stage("evaluation"):
            summary = evaluate_run(
                config, root, stages.base, stages.target, router, adapters, baseline, spent, stages.progress
            )
    write_document(root / SUMMARY, summary.replace(stage_seconds=stages.clock.seconds()))


if __name__ == "__main__":
    run(main)
