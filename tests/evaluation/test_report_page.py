"""The page from a whole synthetic run, and from the same run read back from its files."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from evaluation import held_out, labels
from evaluation.methods import method_result
from evaluation.report import main, render
from evaluation.report_data import SUMMARY, RunSummary, load_report_data
from evaluation.report_files import ANALYSIS, TABLE
from trace_jax.contract.digest import refer
from trace_jax.contract.files import write_document
from trace_jax.errors import UserError
from trace_jax.telemetry.metrics import MetricsWriter

PLOTS = {"pass_rates", "budget", "learning_curves", "capabilities", "confusion_matrix", "stage_times"}
TABLES = {"methods", "comparisons", "capabilities", "calibration", "adapters"}


class Page(HTMLParser):
    """Ids of figures and tables, cells of tables, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.figures, self.rows, self.links = [], {}, {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag in ("meta", "br"):
            return
        self.stack.append((tag, found.get("id")))
        if tag == "figure":
            self.figures[found["id"].removeprefix("plot-")] = 0
        if tag == "path" and (figure := self.inside("figure")):
            self.figures[figure.removeprefix("plot-")] += 1
        if tag == "tr" and (table := self.inside("table")):
            self.rows[table] = self.rows.get(table, 0) + 1

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "br"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1][0] == tag, f"</{tag}> closes {self.stack[-1:]}"
        self.stack.pop()

    def inside(self, tag):
        return next((name for found, name in reversed(self.stack) if found == tag), None)


@pytest.fixture(scope="module")
def text(data):
    return render(data)


def test_page_holds_every_plot_and_table_and_refers_to_nothing_outside(data, text):
    page = Page(text)
    assert not page.stack and page.links == []
    assert set(page.figures) == PLOTS and all(count > 15 for count in page.figures.values())
    assert set(page.rows) == TABLES
    assert page.rows["methods"] == 1 + len(data.evaluation.methods)
    assert page.rows["calibration"] == 5 and page.rows["adapters"] == 6 and page.rows["capabilities"] == 7
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", text)
    assert render(data) == text  # equal data, equal bytes


def test_page_shows_the_numbers_of_the_records(data, text):
    for method in data.evaluation.methods:
        assert f"{100 * method.pass_rate.mean:.1f}" in text
    assert "30 (!)" in text  # the method with too many broken episodes
    assert f"{100 * data.confusion.accuracy:.1f} % of the conversations" in text


def test_text_from_outside_is_escaped(data):
    text = render(dataclasses.replace(data, title="<script>alert(1)</script>"))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_page_of_an_evaluation_alone(evaluation, data):
    bare = dataclasses.replace(type(data)(title="only", evaluation=evaluation))
    page = Page(render(bare))
    assert set(page.figures) == {"pass_rates"} and set(page.rows) == {"methods", "comparisons"}


def write_run(data, root):
    """A finished run, and beside its files what the report does not show: the base's own, and snapshots."""
    write_document(root / "evaluation" / "report.json", data.evaluation)
    write_document(root / ANALYSIS, data.analysis)
    write_document(root / TABLE, data.table)
    for item in data.environments:
        write_document(root / "environments" / f"{item.name}.json", item)
    for item in data.adapters:
        write_document(root / "adapters" / item.name / "adapter.json", item)
        write_document(root / "adapters" / item.name / "snapshots" / "00000064" / "adapter.json", item)
        with MetricsWriter(root / "adapters" / item.name, tensorboard=False) as writer:
            for step, row in data.metrics[item.name].items():
                writer.write(step, row)
    (root / "base").mkdir()
    (root / "base" / "tokenizer.json").write_text("[1, 2]")
    summary = RunSummary(
        title=data.title,
        evaluation=refer(root / "evaluation" / "report.json", root),
        analysis=refer(root / ANALYSIS, root),
        environments=tuple(refer(root / "environments" / f"{item.name}.json", root) for item in data.environments),
        adapters=tuple(refer(root / "adapters" / item.name / "adapter.json", root) for item in data.adapters),
        table=refer(root / TABLE, root),
        stage_seconds=dict(data.stage_seconds),
        confusion=data.confusion,
        budget=data.budget,
        notes=dict(data.notes),
    )
    write_document(root / SUMMARY, summary)


def test_report_is_rebuilt_from_the_work_directory(data, tmp_path, capsys):
    write_run(data, tmp_path)
    found = load_report_data(tmp_path)
    by_name = {item.name: item for item in found.adapters}
    assert by_name == {item.name: item for item in data.adapters} and found.metrics == data.metrics
    assert {e.name for e in found.environments} == {e.name for e in data.environments}
    for name in ("title", "evaluation", "analysis", "table", "confusion", "stage_seconds", "budget", "notes"):
        assert getattr(found, name) == getattr(data, name)
    main(tmp_path)
    assert set(Page((tmp_path / "report.html").read_text()).figures) == PLOTS
    assert "trace routed" in capsys.readouterr().out


def test_files_that_cannot_be_right_are_refused_by_name(data, tmp_path):
    with pytest.raises(UserError, match="run_summary.json: no such file"):
        load_report_data(tmp_path)
    write_run(data, tmp_path)
    path = tmp_path / "adapters" / "grpo_target" / "adapter.json"
    path.write_text(path.read_text().replace('"steps": 25', '"steps": 26'))
    with pytest.raises(
        UserError, match=rf"{path}: sha256 is \w{{64}}, expected \w{{64}} \(by .*{SUMMARY}\): .*restore"
    ):
        load_report_data(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path}: no such file"):
        load_report_data(tmp_path)


@pytest.mark.parametrize("name", ["adapters/grpo_target/adapter.json", TABLE, ANALYSIS, "evaluation/report.json"])
def test_a_file_of_the_run_that_is_torn_is_refused(data, tmp_path, name):
    write_run(data, tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{path}: sha256 is"):
        load_report_data(tmp_path)


def test_what_the_summary_does_not_name_is_left_out_with_a_warning(data, tmp_path, caplog):
    write_run(data, tmp_path)
    lost, base = data.adapters[0].replace(name="stranger"), tmp_path / "base" / "tokenizer.json"
    for path, record in (
        (tmp_path / "adapters" / "stranger" / "adapter.json", lost),
        (tmp_path / "adapters" / "stranger" / "snapshots" / "00000064" / "adapter.json", lost),
        (tmp_path / "environments" / "copy.json", data.environments[0]),
        (tmp_path / "routing" / "older.json", data.table),
        (tmp_path / "analysis of last week.json", data.analysis),
        (tmp_path / "evaluation" / "older.json", data.evaluation),
    ):
        write_document(path, record)
    base.write_text(base.read_text()[:-1])
    found = load_report_data(tmp_path)
    assert {item.name for item in found.adapters} == {item.name for item in data.adapters}
    assert len(found.environments) == len(data.environments) and found.table == data.table
    warned = [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in caplog.messages]
    assert warned == [
        "adapters/stranger/adapter.json", "adapters/stranger/snapshots/00000064/adapter.json",
        "analysis of last week.json", "base/tokenizer.json", "environments/copy.json", "evaluation/older.json",
        "routing/older.json",
    ]  # fmt: skip


def test_every_method_family_has_its_colour():
    names = ("trace_routed", "routed", "grpo_target", "base", "oracle_routed", "random_routed")
    assert [labels.family(name) for name in names] == ["trace", "trace", "grpo", "other", "other", "other"]
    names = (held_out.ROUTED, held_out.GRPO, held_out.BEST_SINGLE)
    assert [labels.family(name) for name in names] == ["trace", "grpo", "other"]


def test_durations_read_as_people_write_them():
    assert [labels.duration(s) for s in (2.04, 59.94, 59.96, 245, 7800)] == [
        "2.0 s",
        "59.9 s",
        "1 min 00 s",
        "4 min 05 s",
        "2 h 10 min",
    ]


def test_the_page_says_what_doing_nothing_scores(data, text):
    assert "does nothing" not in text
    rewards = {task: (float(task == "3"),) for task in data.evaluation.tasks}
    nothing = method_result("do nothing", 0.0, 0, rewards)
    page = render(dataclasses.replace(data, evaluation=data.evaluation.replace(do_nothing=nothing)))
    assert "An agent that does nothing solves 1.2 % of them." in page
