"""Judges an analyst on failures whose causes are known: the rules, a language model, or one of your own.

    python -m evaluation.analyst --config=configs/quickstart.py --workdir=OUT --agentrx=DIR
    python -m evaluation.analyst --config=configs/quickstart.py --workdir=OUT --endpoint=URL --config.llm.model=NAME

The sources are the helpdesk's demonstrator, which lacks four skills and has two; the calendar and the bank, whose
scripted agents have four faults each, and habits that cost nothing; and, with --agentrx, what people say went wrong in
14 failed runs on τ-bench retail. A selected capability stands for a fault if 80 % of the failed episodes that it marks
have the fault; the fault is found if these are half of the failed episodes with it. Names do not count.

The program writes each analysis and its score to OUT, then analyst.json, and prints the tables. After an interruption
the same command continues; a model's answers are kept and not asked for again. See docs/analyst.md.
"""

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.judging.judge import Judge, report_on
from evaluation.judging.opened import cost_of, opener, with_endpoint
from evaluation.judging.sources import SOURCES, sources
from evaluation.judging.table import print_report
from trace_jax.analysis import Criteria
from trace_jax.contract.files import write_document
from trace_jax.contract.workdir import open_workdir
from trace_jax.program import run
from trace_jax.run_settings import read_settings
from trace_jax.telemetry.progress import Progress

REPORT = "analyst.json"


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Analyse every source, score, print."""
    settings = with_endpoint(read_settings(config), ENDPOINT.value)
    todo = tuple(sources(FROM.value, SEEDS.value, AGENTRX.value))
    model = settings.llm.model if settings.analysis.analyst == "llm" else None
    open_workdir(
        workdir,
        {"analyst": settings.analysis.analyst, "model": model, "runs": settings.analysis.runs, "seed": settings.seed},
    )
    judge = Judge(
        opener(settings),
        cost_of,
        runs=settings.analysis.runs,
        seed=settings.seed,
        criteria=Criteria(min_support=settings.analysis.min_support),
    )
    scores = []
    with Progress() as progress, progress.stage("sources", len(todo)) as stage:
        for source in todo:
            scores.append(judge.source(source, workdir / source.directory))
            stage.advance()
    report = report_on(settings.analysis.analyst, model, settings.analysis.runs, scores)
    write_document(workdir / REPORT, report)
    print_report(report)
    print(f"report: {workdir / REPORT}")


if __name__ == "__main__":
    ENDPOINT = flags.DEFINE_string("endpoint", None, "judge the language model of this OpenAI-compatible URL")
    FROM = flags.DEFINE_list("sources", list(SOURCES), "planted sources: helpdesk, calendar, bank; empty: none")
    SEEDS = flags.DEFINE_integer("seeds", 1, "draws of each planted source", lower_bound=1)
    AGENTRX = flags.DEFINE_string("agentrx", None, "directory of people's labels and the runs: see docs/analyst.md")
    run(main)
