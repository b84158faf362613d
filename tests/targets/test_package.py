"""Claims: a benchmark that is missing, of another version or with changed task files is refused in one line."""

import sys

import pytest

from trace_jax.environments.registry import load_target
from trace_jax.errors import UserError
from trace_jax.targets.bfcl import Bfcl
from trace_jax.targets.package import BenchmarkPackage

SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"  # of "hello\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package with one task file in a folder."""
    info = tmp_path / "toybench-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toybench\nVersion: 1.0\n")
    tasks = tmp_path / "toybench_module" / "tasks"
    tasks.mkdir(parents=True)
    (tasks.parent / "__init__.py").touch()
    (tasks / "tasks.json").write_text("hello\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tasks
    sys.modules.pop("toybench_module", None)


def package(version: str = "1.0") -> BenchmarkPackage:
    return BenchmarkPackage("toy", "toybench", version, f"pip install toybench=={version}", SHA256)


def test_the_version_holds_the_digest_of_the_task_files(installed):
    package().require()
    assert package().checked_version("toybench_module", ["tasks"]) == f"toybench 1.0 sha256:{SHA256}"
    assert package().checked_version("toybench_module", ["tasks/tasks.json"]).endswith(SHA256)


def test_another_version_is_refused_with_the_line_that_installs_the_right_one(installed):
    with pytest.raises(UserError, match=r"^target 'toy' needs toybench 2.0, found 1.0: pip install toybench==2.0$"):
        package("2.0").require()


def test_a_changed_task_file_is_refused(installed):
    (installed / "tasks.json").write_text("hallo\n")
    with pytest.raises(UserError, match=r"^target 'toy': the task files of toybench 1.0 have SHA-256 \w{64}, not 5891"):
        package().checked_version("toybench_module", ["tasks"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bfcl", "pip install --no-deps bfcl-eval==2026.3.23 mpmath"),
        ("agentdojo", "pip install agentdojo==0.1.35"),
    ],
)
def test_a_missing_benchmark_is_refused_with_its_install_line(name, line):
    with pytest.raises(UserError) as refused:
        load_target(name)
    assert str(refused.value).endswith(f"which this Python lacks: {line}")


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("bfcl", {"categories": ["base", "web"]}, r"categories \['base', 'web'\]: give a list of some of base,"),
        ("agentdojo", {"suites": []}, r"suites \[\]: give a list of some of banking, slack, travel, workspace"),
    ],
)
def test_unknown_parameters_are_refused(name, parameters, words):
    with pytest.raises(UserError, match=words):
        load_target(name, parameters)


def test_a_text_is_not_a_list_of_its_letters():
    with pytest.raises(UserError, match="categories 'base': give a list"):
        Bfcl("base")
