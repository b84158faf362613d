"""The cost model against what was recorded: requests and tokens of each stage, predicted and counted.

    python -m evaluation.recorded_analysis --workdir=OUT --airline=FILE --agentrx=DIR
    python -m benchmarks.cost_model [--tokenizer=DIR] [--recorded=OUT --airline=FILE --agentrx=DIR]

Predicted is what --dry_run says before anything is asked. Recorded are the requests and answers on file: those for the
calendar (assets/calendar_llm), and with --recorded those that evaluation.recorded_analysis has made of the judgements
on airline and retail. Their answers were written by hand: an answer is as long as a reader made it. Prompts are counted
by bytes, as the prediction counts them, and by the tokenizer.json in --tokenizer; without it by bytes alone.

No designer has been recorded on airline. Its first request is made, for the capability that the recorded analysis ranks
first, and the modules in examples/environments stand for its answers.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from absl import app, flags

from benchmarks.written_designs import RECORDED, example_designs
from configs.calendar_llm import get_config
from evaluation.judging.people import RUNS
from evaluation.judging.recorded import read_judgements
from evaluation.recorded_analysis import CALLS, JUDGEMENTS, read_by_hand
from trace_jax.analysis.compact import compact
from trace_jax.analysis.importers import tau_bench
from trace_jax.analysis.llm.estimate import estimate
from trace_jax.analysis.llm.labeling import LABEL
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.analysis.token_count import Count, bounded_by_bytes, counted_by
from trace_jax.contract.capability import SelectedCapability
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.run_settings import read_settings
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.examples import examples_of
from trace_jax.synthesis.kinds import Evidence
from trace_jax.synthesis.llm.designer import STAGE as DESIGN
from trace_jax.synthesis.llm.estimate import ANSWER_TOKENS, first_prompt_tokens
from trace_jax.synthesis.llm.values import prompt_values

TOKENIZER = flags.DEFINE_string("tokenizer", "", "directory of the tokenizer.json that counts; empty: by bytes")
OUT = flags.DEFINE_string("recorded", None, "work directory of evaluation.recorded_analysis")
AIRLINE = flags.DEFINE_string("airline", None, "its result file of τ-bench airline")
AGENTRX = flags.DEFINE_string("agentrx", None, "its directory with AgentRx's runs on τ-bench retail")

TASKS = {"airline": 50, "retail": 114}  # of τ²-bench, 164 in all
EPISODES, LABELINGS = 2, 10  # of each task, in the run that the model is for


@dataclass
class Stage:
    """One stage of a run, predicted and recorded.

    Attributes:
        bounded: tokens of the recorded prompts, counted as the prediction counts them.
        prompts, answers: tokens of what is on file.
    """

    run: str
    name: str
    predicted_requests: int
    predicted_prompts: int
    predicted_answers: int
    requests: int = 0
    bounded: int = 0
    prompts: int = 0
    answers: int = 0


@dataclass
class Run:
    """The stages of one analysis, and how many episodes were labelled how often."""

    name: str
    episodes: int
    labelings: int
    stages: list[Stage] = field(default_factory=list)


def main(_: list[str]) -> None:
    """Print predicted against recorded, and the model for 164 tasks."""
    count = counted_by(TOKENIZER.value) if TOKENIZER.value else bounded_by_bytes()
    runs = [calendar(count), *domains(count)]
    print(stage_table([stage for run in runs for stage in run.stages]))
    if scaled := [run for run in runs if run.name in TASKS]:
        print(f"\n{scaled_table(scaled)}")
    if OUT.value and AIRLINE.value:
        print(f"\n{design_table(count)}")


def calendar(count: Count) -> Run:
    """What was recorded for the calendar: its analysis, and three designs whose first answers were accepted."""
    settings = read_settings(get_config())
    found = sorted(read_episodes(RECORDED / "base_rollouts.jsonl"), key=lambda episode: (episode.seed, episode.trial))
    run = analysis("calendar", found, settings.analysis, settings.llm, RECORDED / "analysis" / CALLS, count)
    designs = recorded(RECORDED / "environments" / CALLS, count)
    found_design = Stage("calendar", DESIGN, 0, 0, 0)
    for each in designs.values():
        found_design.requests += each.requests
        found_design.bounded += each.bounded
        found_design.prompts += each.prompts
        found_design.answers += each.answers
    # The first request of each is made before it is sent, and the record answers no other: so they are equal.
    found_design.predicted_requests, found_design.predicted_prompts = len(designs), found_design.bounded
    found_design.predicted_answers = len(designs) * ANSWER_TOKENS
    run.stages.append(found_design)
    return run


def domains(count: Count) -> Iterator[Run]:
    """The analyses of the domains whose episodes and records are given."""
    runs = AGENTRX.value and Path(AGENTRX.value) / RUNS
    for domain, path, agent in (("airline", AIRLINE.value, "gpt-4o"), ("retail", runs, "unknown")):
        if OUT.value and path:
            judgements = read_judgements(JUDGEMENTS / f"{domain}.json")
            found = read_by_hand(tau_bench.load(path, domain, agent), judgements, domain)
            settings = AnalysisSettings(analyst="llm", runs=len(judgements.runs))
            yield analysis(domain, found, settings, LanguageModelSettings(), Path(OUT.value) / domain / CALLS, count)


def analysis(
    name: str,
    episodes: Sequence[Trajectory],
    settings: AnalysisSettings,
    llm: LanguageModelSettings,
    record: PathLike,
    count: Count,
) -> Run:
    """Each stage of an analysis."""
    graded = [episode for episode in episodes if not episode.broken]
    on_file = recorded(record, count)
    run = Run(name, len(graded), settings.runs)
    for each in estimate(graded, settings, llm, 0):
        stage = on_file[each.stage]
        stage.run, stage.predicted_requests = name, each.requests
        stage.predicted_prompts, stage.predicted_answers = each.prompt_tokens, each.answer_tokens
        run.stages.append(stage)
    return run


def recorded(record: PathLike, count: Count) -> dict[str, Stage]:
    """The sums over the answered calls on file, by stage."""
    bound = bounded_by_bytes()
    found: dict[str, Stage] = defaultdict(lambda: Stage("", "", 0, 0, 0))
    for call in read_records(record, ModelCall):
        if call.answer is None:
            continue
        stage = found[call.stage]
        stage.name = call.stage
        stage.requests += 1
        stage.bounded += sum(bound(message.content) for message in call.messages)
        stage.prompts += sum(count(message.content) for message in call.messages)
        stage.answers += count(call.answer)
    return found


def stage_table(stages: Sequence[Stage]) -> str:
    """Predicted against recorded."""
    lines = [
        "| run | stage | requests: predicted, recorded | prompt tokens: predicted | recorded, by bytes "
        "| recorded, counted | answer tokens: predicted | recorded, counted | predicted / counted: prompts, answers |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for each in stages:
        ratios = f"{each.predicted_prompts / each.prompts:.2f}, {each.predicted_answers / each.answers:.2f}"
        lines.append(
            f"| {each.run} | {each.name} | {each.predicted_requests}, {each.requests} | {each.predicted_prompts:,} "
            f"| {each.bounded:,} | {each.prompts:,} | {each.predicted_answers:,} | {each.answers:,} | {ratios} |"
        )
    return "\n".join(lines)


def scaled_table(runs: Sequence[Run]) -> str:
    """The analyses of ``TASKS``: labels in proportion to episodes and labelings, the rest as it is."""
    tasks = sum(TASKS[run.name] for run in runs)
    lines = [
        f"{tasks} tasks, {EPISODES} episodes each, {LABELINGS} labelings:",
        "",
        "| stage | requests | prompts: predicted | from the record | answers: predicted | from the record |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 5)
    for run in runs:
        for each in run.stages:
            factor = TASKS[run.name] * EPISODES / run.episodes * LABELINGS / run.labelings if each.name == LABEL else 1
            values = (each.requests, each.predicted_prompts, each.prompts, each.predicted_answers, each.answers)
            sums[each.name] = [a + factor * b for a, b in zip(sums[each.name], values, strict=True)]
    lines += [f"| {name} | {' | '.join(f'{value:,.0f}' for value in values)} |" for name, values in sums.items()]
    return "\n".join(lines)


def design_table(count: Count) -> str:
    """The parts of the first request for a design on airline, and the tokens of modules as answers."""
    assert OUT.value and AIRLINE.value, "both are given"
    selected = next(iter(read_records(Path(OUT.value) / "airline" / "by_hand" / "selected.jsonl", SelectedCapability)))
    episodes = tau_bench.load(AIRLINE.value, "airline", "gpt-4o")
    examples = list(example_designs(None, None))
    shown = examples_of(Evidence(episodes, frozenset(selected.failed_examples)), compact)
    brief = replace(examples[0].brief, capability=selected.capability, examples=shown)
    values = prompt_values(brief, (), Window())
    parts = {
        "policy": count(values["policy"]),
        "tools": sum(count(tool["text"]) for tool in values["tools"]),
        "schemas of their results": sum(count(tool["result"]) for tool in values["tools"]),
        "results that were seen": sum(count(text) for tool in values["tools"] for text in tool["examples"]),
        "episodes": sum(count(page) for page in (*values["failed"], *values["passed"])),
    }
    whole = first_prompt_tokens(brief, count)
    parts = {"instructions, kit and example": whole - sum(parts.values()), **parts, "first request": whole}
    answers = [count(json.dumps(each.design.source)) for each in examples]
    lines = ["| part of a design's prompt | tokens |", "|---|---:|", *(f"| {k} | {v:,} |" for k, v in parts.items())]
    lines.append(
        f"| answer: assumed, shortest, mean, longest | {ANSWER_TOKENS:,}, {min(answers):,}, "
        f"{sum(answers) / len(answers):,.0f}, {max(answers):,} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
