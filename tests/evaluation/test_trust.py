"""What was changed after it was written is refused by whoever loads it, and found by the check of the directory."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import small_run
from etils import epath
from programs import run_program

from configs.base import get_config
from evaluation.report_data import SUMMARY, RunSummary, load_report_data
from evaluation.report_files import read_report
from evaluation.verification import verify
from launch.verify import check
from trace_jax.analysis.stage import analyse
from trace_jax.contract.adapter import AdapterManifest, check_adapter, manifest_of
from trace_jax.contract.capability import Candidate, Interval, LabelRun, SelectedCapability
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.routing import RouteTable
from trace_jax.contract.seal import unsealed
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.source import load_source
from trace_jax.errors import UserError
from trace_jax.gateway.adapters import Adapters, held_adapters
from trace_jax.pipeline.calibration import calibration_groups
from trace_jax.pipeline.checks import trained_adapter
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import save_gate
from trace_jax.routing.load import load_router
from trace_jax.routing.select import Best
from trace_jax.session import load_adapters, load_base

ROOT = Path(__file__).parents[2]
WEIGHTS, CONFIG = "adapters/look/peft/adapter_model.safetensors", "adapters/look/peft/adapter_config.json"
MANIFEST, TABLE, GATE = "adapters/look/adapter.json", "routing/route_table.json", "routing/gate.safetensors"
ENVIRONMENT, CALIBRATION = "environments/look.json", "environments/look.rollouts.jsonl"
LABELS, EPISODES, REPORT = "analysis/label_runs.jsonl", "evaluation/trajectories.jsonl", "evaluation/report.json"
BASE, METRICS = "base_rollouts.jsonl", "adapters/look/metrics.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("small") / "run"
    small_run.make_run(root)
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# --- what is done to a run -------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    """One bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def edit(path: Path, old: str, new: str, *, unseal: bool = False) -> None:
    """The first ``old`` becomes ``new``; ``unseal`` takes the seals away, as somebody would who knows of them."""
    data = path.read_bytes()
    assert old.encode() in data, path
    path.write_bytes(data.replace(old.encode(), new.encode(), 1))
    if unseal:
        unsealed_file(path)


def unsealed_file(path: Path) -> None:
    """The records without their seals."""
    lines = path.read_bytes().splitlines() if path.suffix == ".jsonl" else [path.read_bytes()]
    bodies = [unsealed(line) for line in lines]
    assert all(stated for _, stated, _ in bodies)
    path.write_bytes(b"".join(body + b"\n" for body, _, _ in bodies))


def swap(first: Path, other: Path) -> None:
    """Each of the two gets the other's place."""
    kept = first.with_name("kept")
    first.rename(kept)
    other.rename(first)
    kept.rename(other)


def alpha(path: Path) -> None:
    """An alpha a hundred times as large."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "lora_alpha": 100 * data["lora_alpha"]}, indent=2))


def other_gate(root: Path) -> None:
    """A sound gate of the same base that sends everything elsewhere."""
    save_gate(root / GATE, small_run.gate(read_document(root / TABLE, RouteTable).base, -9.0))


# --- who loads it ----------------------------------------------------------------------------------------------------


def load_all_adapters(root: Path) -> None:
    config = get_config()
    config.base.path = str(root / "base")
    paths = [epath.Path(root / "adapters" / name / "adapter.json") for name in small_run.NAMES]
    load_adapters([(path, read_document(path, AdapterManifest)) for path in paths], load_base(config))


def serve(root: Path) -> None:
    held_adapters(root, read_document(root / TABLE, RouteTable))


def merge(root: Path) -> None:
    flags = f"--base={root / 'base'}", f"--adapter={(root / WEIGHTS).parent}", f"--out={root / 'merged'}"
    done = run_program("launch.merge", *flags)
    assert done.stderr.count("error:") <= 1 and not (done.returncode and (root / "merged").exists())
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))


def route(root: Path) -> None:
    config = get_config()
    config.base.path = str(root / "base")
    base = load_base(config)
    load_router(root / TABLE, base.revision, PromptReader(base.decoder), base.renderer, Best())


def take_calibration(root: Path) -> None:
    calibration_groups(read_document(root / ENVIRONMENT, EnvironmentManifest), root / "environments")


def play_environment(root: Path) -> None:
    load_source(str(root / ENVIRONMENT), "train", 1)


def _base(root: Path) -> list[Trajectory]:
    """The base's episodes in the order of their plan."""
    return sorted(read_episodes(root / BASE), key=lambda episode: episode.seed)


def analyse_again(root: Path) -> None:
    analyse(_base(root), small_run.Labeller(), root / "analysis", runs=2, criteria=small_run.FAST)


def analyse_more(root: Path) -> None:
    analyse(_base(root), small_run.Labeller(), root / "analysis", runs=3, criteria=small_run.FAST)


def report_again(root: Path) -> None:
    load_report_data(root)


def read_evaluation(root: Path) -> None:
    read_report(root / REPORT)


def resume_evaluation(root: Path) -> None:
    read_episodes(root / EPISODES)


def go_on(root: Path) -> None:
    open_workdir(root, small_run.SETTINGS)


LOADERS = (
    load_all_adapters, serve, route, take_calibration, play_environment, analyse_again, report_again, read_evaluation,
    resume_evaluation, go_on,
)  # fmt: skip


CASES: dict[str, tuple[Callable[[Path], None], str, str, tuple[Callable[[Path], None], ...]]] = {
    # what is done: how, the file that is named as wrong, the file of which the check says so, who refuses it
    "a bit of the weights": (lambda r: flip(r / WEIGHTS, -3), WEIGHTS, MANIFEST, (load_all_adapters, serve, merge)),
    "a bit of their header": (lambda r: flip(r / WEIGHTS, 30), WEIGHTS, MANIFEST, (load_all_adapters, serve)),
    "a curve of the training": (
        lambda r: edit(r / METRICS, "0.5", "0.9"), METRICS, SUMMARY, (report_again,),
    ),
    "swapped curves": (
        lambda r: swap(r / METRICS, r / METRICS.replace("look", "finish")), METRICS, SUMMARY, (report_again,),
    ),
    "an alpha times 100": (lambda r: alpha(r / CONFIG), CONFIG, MANIFEST, (load_all_adapters, serve, merge)),
    "an alpha of the manifest": (
        lambda r: edit(r / MANIFEST, '"alpha": 8.0', '"alpha": 800.0'), MANIFEST, MANIFEST,
        (load_all_adapters, serve, merge, report_again),
    ),
    "swapped weights": (
        lambda r: swap(r / WEIGHTS, r / WEIGHTS.replace("look", "finish")), WEIGHTS, MANIFEST,
        (load_all_adapters, serve),
    ),
    "swapped PEFT directories": (
        lambda r: swap(r / "adapters/look/peft", r / "adapters/finish/peft"), WEIGHTS, MANIFEST,
        (load_all_adapters, serve),
    ),
    "swapped adapters, manifests included": (
        lambda r: swap(r / "adapters/look", r / "adapters/finish"), MANIFEST, TABLE, (serve, report_again),
    ),
    "a bit of the gate": (lambda r: flip(r / GATE, -5), GATE, TABLE, (route,)),
    "another gate": (other_gate, GATE, TABLE, (route,)),
    "another temperature of the router": (
        lambda r: edit(r / TABLE, '"temperature": 1.0', '"temperature": 9.0'), TABLE, TABLE,
        (route, serve, report_again),
    ),
    "another design": (
        lambda r: edit(r / ENVIRONMENT, '"contrast_every": 4', '"contrast_every": 1'), ENVIRONMENT, ENVIRONMENT,
        (play_environment, take_calibration, report_again),
    ),
    "another design, unsealed": (
        lambda r: edit(r / ENVIRONMENT, '"contrast_every": 4', '"contrast_every": 1', unseal=True), ENVIRONMENT,
        ENVIRONMENT, (play_environment, take_calibration, report_again),
    ),
    "a reward of the calibration": (
        lambda r: edit(r / CALIBRATION, '"reward":0.0', '"reward":1.0'), CALIBRATION, CALIBRATION, (take_calibration,),
    ),
    "a reward of the calibration, unsealed": (
        lambda r: edit(r / CALIBRATION, '"reward":0.0', '"reward":1.0', unseal=True), CALIBRATION, ENVIRONMENT,
        (take_calibration,),
    ),
    "calibrations of another environment": (
        lambda r: swap(r / CALIBRATION, r / CALIBRATION.replace("look", "finish")), CALIBRATION, ENVIRONMENT,
        (take_calibration,),
    ),
    "a label": (
        lambda r: edit(r / LABELS, '"LACKING"', '"PRESENT"'), LABELS, LABELS,
        (analyse_again, analyse_more, report_again),
    ),
    "a label, unsealed": (
        lambda r: edit(r / LABELS, '"LACKING"', '"PRESENT"', unseal=True), LABELS, "analysis/analysis_report.json",
        (analyse_again, analyse_more, report_again),
    ),
    "a label run less": (
        lambda r: (r / LABELS).write_bytes((r / LABELS).read_bytes().splitlines(keepends=True)[0]), LABELS,
        "analysis/analysis_report.json", (analyse_again, analyse_more, report_again),
    ),
    "a reward of the base, unsealed": (
        lambda r: edit(r / BASE, '"reward":0.0', '"reward":1.0', unseal=True), BASE, "analysis/source.json", (),
    ),
    "a reward of the base": (lambda r: edit(r / BASE, '"reward":0.0', '"reward":1.0'), BASE, BASE, (analyse_again,)),
    "a reward of the evaluation": (
        lambda r: edit(r / EPISODES, '"reward":0.0', '"reward":1.0'), EPISODES, EPISODES,
        (resume_evaluation, read_evaluation, report_again),
    ),
    "a reward of the evaluation, unsealed": (
        lambda r: edit(r / EPISODES, '"reward":0.0', '"reward":1.0', unseal=True), EPISODES, REPORT,
        (read_evaluation, report_again),
    ),
    "a reward of the report": (
        lambda r: edit(r / REPORT, "0.0", "1.0"), REPORT, REPORT, (read_evaluation, report_again),
    ),
    "the settings": (
        lambda r: edit(r / "workdir.json", '"learning_rate": 0.1', '"learning_rate": 0.9'), "workdir.json",
        "workdir.json", (go_on,),
    ),
    "the summary": (lambda r: edit(r / SUMMARY, '"all": 1.0', '"all": 2.0'), SUMMARY, SUMMARY, (report_again,)),
}  # fmt: skip


def test_an_unchanged_run_is_loaded_and_found_good(root, capsys):
    for load in (*LOADERS, merge, analyse_more):
        load(root)
    said: list[int] = []
    findings = verify(epath.Path(root), lambda finding, total: said.append(total))
    # ``analyse_more`` has written a new report, which the summary does not name
    assert {finding.path for finding in findings if finding.problem} == {SUMMARY}
    assert said == [len(findings)] * len(findings) and len(findings) > 20


@pytest.mark.parametrize("case", CASES)
def test_what_was_changed_is_refused_by_whoever_loads_it_and_found(case, root):
    tamper, wrong, finder, loaders = CASES[case]
    tamper(root)
    for load in loaders:
        with pytest.raises(UserError) as error:
            load(root)
        message = str(error.value)
        assert "\n" not in message and str(root) in message, message
        assert re.search(r"restore|start a new work directory", message), message
    problems = {
        finding.path: finding.problem
        for finding in verify(epath.Path(root), lambda *_: None)
        if finding.problem is not None
    }
    assert finder in problems and str(root / wrong) in problems[finder], problems
    with pytest.raises(UserError, match=rf"{root}: {len(problems)} of \d+ files are wrong, the first is"):
        check(epath.Path(root))


@pytest.mark.parametrize(
    "name", [BASE, LABELS, *(f"analysis/{n}" for n in ("candidates.json", "source.json", "selected.jsonl"))]
)
def test_a_file_of_the_analysis_that_is_gone_is_found(root, name):
    (root / name).unlink()
    with pytest.raises(UserError, match="files are wrong"):
        check(epath.Path(root))
    problems = [finding.problem for finding in verify(epath.Path(root), lambda *_: None) if finding.problem]
    assert any(f"{name}: no such file" in problem for problem in problems)


def test_a_selection_that_is_not_that_of_the_report_is_found(root):
    point = Interval(mean=0.5, low=0.4, high=0.6)
    added = SelectedCapability(
        capability=Candidate(name="added", description="d"), rank=9, coverage=point, delta=point, failed_examples=()
    )
    with JsonLinesWriter(root / "analysis" / "selected.jsonl") as writer:
        writer.append(added)
    problems = [finding.problem for finding in verify(epath.Path(root), lambda *_: None) if finding.problem]
    assert len(problems) == 1 and re.search(r"selected.jsonl: selects \[.*'added'\], .*restore", problems[0])


@pytest.mark.parametrize("name", [WEIGHTS, GATE, CALIBRATION, LABELS, EPISODES])
def test_a_refusal_names_the_file_both_digests_and_a_remedy(name, root):
    """In one line, as of any file that a document vouches for."""
    path = root / name
    unsealed_file(path) if path.suffix == ".jsonl" else flip(path, -1)
    problems = [finding.problem for finding in verify(epath.Path(root), lambda *_: None) if finding.problem is not None]
    line = re.compile(rf"{path}: sha256 is ([0-9a-f]{{64}}), expected ([0-9a-f]{{64}}) \(by .+\): .*restore the file")
    found = [match for problem in problems if (match := line.match(problem))]
    assert found and all(match[1] != match[2] for match in found), problems


def test_a_log_that_has_grown_since_is_good(root):
    small_run.record(root / CALIBRATION, [small_run.episode("more", 9, 0, 0.0)])
    small_run.record(root / EPISODES, [small_run.episode("more", 9, 0, 0.0, "held_out")])
    for load in (take_calibration, read_evaluation, report_again, analyse_more):
        load(root)


def test_a_file_that_is_missing_is_named(root):
    for name in (WEIGHTS, GATE, CALIBRATION, EPISODES):
        (root / name).unlink()
    problems = " ".join(finding.problem or "" for finding in verify(epath.Path(root), lambda *_: None))
    for name in (WEIGHTS, GATE, CALIBRATION, EPISODES):
        assert f"{root / name}: no such file" in problems


def test_a_peft_directory_is_checked_by_its_own_manifest_only(root):
    path, manifest = manifest_of(root / "adapters" / "look" / "peft")
    assert path == root / MANIFEST and check_adapter(path, manifest) == root / "adapters" / "look" / "peft"
    shutil.copytree(root / "adapters" / "look" / "peft", root / "adapters" / "look" / "copy")
    assert manifest_of(root / "adapters" / "look" / "copy") is None
    assert manifest_of(root / "base") is None


def test_the_check_is_a_program_and_a_flag_of_the_pipeline(root):
    good = run_program("launch.verify", f"--workdir={root}")
    assert good.returncode == 0 and re.search(rf"{MANIFEST} +adapter, its weights +ok", good.stdout), good
    assert re.search(rf"{root}: \d+ files, all as they were written", good.stdout) and "verify: " in good.stderr
    flip(root / WEIGHTS, -1)
    for bad in (
        run_program("launch.verify", f"--workdir={root}"),
        run_program("launch.pipeline", "--config=configs/quickstart.py", f"--workdir={root}", "--verify"),
    ):
        assert bad.returncode == 1 and f"{root / WEIGHTS}: sha256 is" in bad.stdout, bad
        assert bad.stderr.splitlines()[-1] == f"error: {root}: 1 of 21 files are wrong, the first is {MANIFEST}"
    nowhere = run_program("launch.verify", "--workdir=nowhere")
    assert nowhere.returncode == 1 and nowhere.stderr.startswith("error: nowhere: no such directory")
    assert run_program("launch.verify").returncode == 2


def test_a_stranger_and_a_torn_document_are_shown(root):
    (root / "environments" / "copy.json").write_bytes((root / ENVIRONMENT).read_bytes())
    (root / "notes.json").write_text("{")
    by_path = {finding.path: finding for finding in verify(epath.Path(root), lambda *_: None)}
    assert by_path["environments/copy.json"].note == f"{SUMMARY} does not name it"
    assert "notes.json: not JSON" in (by_path["notes.json"].problem or "")


def test_records_read_back_equal_and_a_seal_is_one_more_field(root):
    labels = list(read_records(root / LABELS, LabelRun))
    assert len(labels) == 2 and "sha256" not in labels[0].model_dump()
    write_document(root / "again.json", read_document(root / SUMMARY, RunSummary))
    assert (root / "again.json").read_bytes() == (root / SUMMARY).read_bytes()
    assert list(read_records(root / BASE, Trajectory)) == small_run.base_rollouts()[::-1]


def test_the_gateway_looks_again_before_it_merges(root):
    held = held_adapters(root, read_document(root / TABLE, RouteTable))
    adapters = Adapters(held, None, small_run.CONFIG, "b", root / "gateway" / "merged", 1)
    adapters._write({"look": 0.5, "finish": 0.5}, root / "good")
    flip(root / WEIGHTS, -1)
    with pytest.raises(UserError, match=f"{root / WEIGHTS}: sha256 is"):
        adapters._write({"look": 0.5, "finish": 0.5}, root / "bad")
    assert not (root / "bad").exists()


def test_a_trained_adapter_is_gone_on_with_only_under_its_own_name(root):
    (root / "adapters" / "look" / "peft").rename(root / "elsewhere")
    with pytest.raises(UserError, match="adapter_config.json: no such file"):
        trained_adapter(root / "adapters" / "look", "look")
    with pytest.raises(UserError, match="manifest of adapter 'finish', not 'look'"):
        trained_adapter(root / "adapters" / "finish", "look")
    assert trained_adapter(root / "adapters" / "finish", "finish").name == "finish"
