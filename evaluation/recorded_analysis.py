"""Makes the analysis of real failures that a reader wrote by hand, and compares it with the rules analyst's.

    python -m evaluation.recorded_analysis --workdir=OUT --airline=gpt-4o-airline.trials-0-1.json --agentrx=DIR

The reader has judged episodes on τ-bench airline (a result file of sierra-research/tau-bench) and retail (the runs that
microsoft/AgentRx publishes); the judgements lie in assets/recorded_analysis, the episodes do not. An endpoint on the
loopback serves them as answers of a model called recorded-by-hand, the analyst ``llm`` asks it for everything, and the
calls are kept in OUT/DOMAIN/model_calls.jsonl. The analysis is then replayed from that file without any endpoint, and
has to be the same. The rules analyst reads the same episodes. Retail is also compared with people's root causes.
"""

from collections.abc import Iterator

from absl import flags
from etils import epath

from evaluation.judging.judge import report_on
from evaluation.judging.people import LABELS, RUNS, root_causes, truth_of
from evaluation.judging.recorded import Judgements, Reader, read_judgements
from evaluation.judging.report import Cost
from evaluation.judging.score import score
from evaluation.judging.table import print_report
from evaluation.judging.written_endpoint import written_endpoint
from evaluation.program import required, run
from trace_jax.analysis import Analysis, AnalysisSettings, Criteria, analyse, make_analyst, markdown_table
from trace_jax.analysis.importers import tau_bench
from trace_jax.analysis.stage import source_of
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.llm import LanguageModelSettings
from trace_jax.program import WORKDIR

JUDGEMENTS = epath.Path(__file__).parent.parent / "assets" / "recorded_analysis"
CALLS = "model_calls.jsonl"

Episodes = tuple[Trajectory, ...]


def main() -> None:
    """Analyse each domain that is given, replay, compare, print."""
    workdir = epath.Path(required(WORKDIR))
    todo = list(domains())
    if not todo:
        raise UserError("no episodes: name them with --airline=FILE, --agentrx=DIR, or both")
    for domain, trajectories in todo:
        judgements = read_judgements(JUDGEMENTS / f"{domain}.json")
        episodes = read_by_hand(trajectories, judgements, domain)
        by_hand = by_reader(episodes, judgements, workdir / domain)
        rules = analyse(episodes, make_analyst("rules"), workdir / domain / "rules")
        for name, found in ((judgements.model, by_hand), ("rules", rules)):
            print(f"\n# {domain}: {name}\n\n{markdown_table(found.report)}")
            if domain == "retail":
                compare_with_people(found, episodes, name, workdir / domain)


def domains() -> Iterator[tuple[str, Episodes]]:
    """The domains that the flags name, with all their episodes."""
    if AIRLINE.value:
        yield "airline", tau_bench.load(AIRLINE.value, "airline", "gpt-4o")
    if AGENTRX.value:
        yield "retail", tau_bench.load(epath.Path(AGENTRX.value) / RUNS, "retail", "unknown")


def read_by_hand(trajectories: Episodes, judgements: Judgements, domain: str) -> Episodes:
    """The episodes that the reader has judged. Raises UserError if some are not there."""
    found = tuple(episode for episode in trajectories if episode.id in judgements.episodes)
    absent = sorted(judgements.episodes - {episode.id for episode in found})
    if absent:
        raise UserError(
            f"{domain}: {len(absent)} judged episodes are not there, such as {absent[0]}: give the file named"
        )
    return found


def by_reader(episodes: Episodes, judgements: Judgements, place: epath.Path) -> Analysis:
    """The analysis by ``judgements``, made over HTTP and replayed without."""
    settings = AnalysisSettings(analyst="llm", runs=len(judgements.runs))
    place.mkdir(parents=True, exist_ok=True)

    def analysed(llm: LanguageModelSettings, directory: str) -> Analysis:
        analyst = make_analyst("llm", analysis=settings, llm=llm, record=place / CALLS)
        return analyse(episodes, analyst, place / directory, runs=settings.runs, criteria=Criteria())

    reader = Reader(judgements, {episode.id: episode for episode in episodes})
    with written_endpoint(lambda form, seed, messages: reader.answer(form, seed, messages[-1]["content"])) as url:
        made = analysed(LanguageModelSettings(url=url, model=judgements.model, concurrency=1), "by_hand")
    replayed = analysed(LanguageModelSettings(model=judgements.model, replay=True), "replayed")
    if (made.candidates, made.runs, made.report) != (replayed.candidates, replayed.runs, replayed.report):
        raise UserError(f"{place}: the replay differs from what was recorded: remove the directory and start again")
    return made


def compare_with_people(found: Analysis, episodes: Episodes, name: str, place: epath.Path) -> None:
    """Score ``found`` on people's root causes, print the tables, write the report."""
    path = epath.Path(AGENTRX.value) / LABELS
    truth = truth_of(episodes, root_causes(path), str(path))
    scored = score(found, truth, source_of(episodes).content, Cost(seconds=0.0))
    report = report_on(name, None, len(found.runs), [scored])
    write_document(place / f"people_{name}.json", report)
    print()
    print_report(report)


if __name__ == "__main__":
    AIRLINE = flags.DEFINE_string("airline", None, "result file of τ-bench airline, trials 0 and 1 of gpt-4o")
    AGENTRX = flags.DEFINE_string("agentrx", None, "directory with AgentRx's runs and labels on τ-bench retail")
    run(main)
