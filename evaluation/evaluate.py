"""Scores a base, adapters, merges and routers on a target.

    python -m evaluation.evaluate --config=configs/quickstart.py --workdir=OUT \
        --adapters=RUN/adapters/a/adapter.json,RUN/adapters/b/checkpoints --merges=a+b,0.5*a+0.5*b \
        --route_tables=RUN/routing/route_table.json

An adapter is a manifest (adapter.json), a PEFT directory or an Orbax step. A directory stands for all of them below it.
The base is always scored. Each method plays every task greedily, and ``evaluation.trials`` times at
``evaluation.temperature``. The program writes ``trajectories.jsonl`` as episodes end, then ``evaluation.json``, into
the work directory, and prints the table. After an interruption the same command continues, and after the end it prints
the table again.
"""

from collections.abc import Sequence
from typing import cast

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.checkpoints import find_checkpoints
from evaluation.models import Models
from evaluation.scoring import REPORT, score, source_of
from evaluation.subjects import ROUTED, Adapter, BaseModel, Routed, Subject, parse_merge
from evaluation.terminal import print_evaluation
from trace_jax.contract.trajectory import Split
from trace_jax.program import run
from trace_jax.run_settings import read_settings
from trace_jax.telemetry.progress import Progress


def subjects_of(adapters: Sequence[str], merges: Sequence[str], tables: Sequence[str]) -> list[Subject]:
    """The base, and what the flags name. Raises UserError for what cannot be found."""
    checkpoints = [checkpoint for path in adapters for checkpoint in find_checkpoints(epath.Path(path))]
    own = {checkpoint.adapter: checkpoint for checkpoint in checkpoints if checkpoint.name == checkpoint.adapter}
    names = [ROUTED] if len(tables) == 1 else [f"{ROUTED} by {path}" for path in tables]
    return [
        BaseModel(),
        *map(Adapter, checkpoints),
        *(parse_merge(text, checkpoints) for text in merges),
        *(Routed(epath.Path(path), name, own) for path, name in zip(tables, names, strict=True)),
    ]


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Score what the flags name."""
    settings = read_settings(config)
    subjects = subjects_of(ADAPTERS.value, MERGES.value, ROUTE_TABLES.value)
    source = source_of(settings, cast(Split, SPLIT.value))
    temperatures = list(dict.fromkeys((0.0, settings.evaluation.temperature)))
    with Progress() as progress:
        report = score(Models(settings), source, subjects, temperatures, workdir, progress=progress)
    print_evaluation(report)
    print(f"report: {workdir / REPORT}")


if __name__ == "__main__":
    ADAPTERS = flags.DEFINE_list("adapters", [], "adapter.json, PEFT directories, Orbax steps, or directories above")
    MERGES = flags.DEFINE_list("merges", [], "sums of these adapters by name, as a+b or 0.5*a+0.5*b")
    ROUTE_TABLES = flags.DEFINE_list("route_tables", [], "route tables; their adapters are those of their runs")
    SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "tasks to score on")
    run(main)
