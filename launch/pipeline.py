"""The whole method: from failures of the base to routed adapters, with their evaluation.

    python -m launch.pipeline --config=configs/quickstart.py --workdir=DIR

The stages are: rollouts of the base, analysis, synthesis, training of one adapter for each capability and of the
router, GRPO on the target with as many rollouts, and the evaluation of all of them on held-out tasks. The program
writes DIR/report.html. After an interruption the same command continues. With --verify the program runs no stage and
checks the files in DIR (see launch.verify). --print_prompts prints what language models are told.
"""

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.held_out import evaluate_run
from evaluation.report import write_report
from evaluation.report_data import SUMMARY, load_report_data
from evaluation.terminal import print_evaluation
from launch.verify import check
from trace_jax.contract.files import write_document
from trace_jax.pipeline.method import Pipeline, run_method
from trace_jax.program import run
from trace_jax.run_settings import read_settings

VERIFY = flags.DEFINE_bool("verify", False, "check every file of the work directory, and run nothing")


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Run all stages that are not done yet, then write the report."""
    if VERIFY.value:
        check(workdir)
        return
    pipeline = Pipeline(read_settings(config), workdir)
    if not (pipeline.root / SUMMARY).exists():
        with pipeline.progress:
            trained = run_method(pipeline)
            with pipeline.times.stage("evaluation"):
                summary = evaluate_run(pipeline, trained)
        write_document(pipeline.root / SUMMARY, summary.replace(stage_seconds=pipeline.times.seconds()))
    data = load_report_data(pipeline.root)
    write_report(data, pipeline.root / "report.html")
    print_evaluation(data.evaluation)
    print(f"{sum(data.stage_seconds.values()):.0f} s in all; see {pipeline.root / 'report.html'}")


if __name__ == "__main__":
    run(main, prompts=["trace_jax.analysis.llm", "trace_jax.synthesis.llm"])
