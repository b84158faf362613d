"""Claims: what was recorded for the calendar is replayed without an endpoint, and the modules in it pass every gate."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from configs.calendar_llm import get_config
from examples.calendar_llm import record
from examples.calendar_llm.answers import CAPABILITIES, LABELS, MODULES
from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.compact import compact
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import analyse
from trace_jax.contract.episodes import read_episodes
from trace_jax.environments.registry import load_target
from trace_jax.run_settings import read_settings
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.designers import make_designer
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.gates import run_gates
from trace_jax.synthesis.kinds import Evidence

SELECTED = {"answer_from_looked_up_data", "refuse_what_policy_forbids", "act_on_what_was_named"}
MODULE_FILES = Path("examples/calendar_llm")


@pytest.fixture(scope="module")
def settings():
    return read_settings(get_config())


@pytest.fixture(scope="module")
def episodes():
    found = read_episodes(record.RUN / "base_rollouts.jsonl")
    return sorted(found, key=lambda episode: (episode.seed, episode.trial))


@pytest.fixture(scope="module")
def found(settings, episodes, tmp_path_factory):
    calls = record.RUN / "analysis" / "model_calls.jsonl"
    analyst = make_analyst("llm", analysis=settings.analysis, llm=settings.llm, record=calls)
    directory = tmp_path_factory.mktemp("analysis")
    criteria = Criteria(min_support=settings.analysis.min_support)
    return analyse(episodes, analyst, directory, runs=settings.analysis.runs, seed=settings.seed, criteria=criteria)


def test_the_recorded_analyst_selects_what_most_failures_lack(found):
    assert {selected.capability.name for selected in found.selected} == SELECTED
    assert {candidate.name for candidate in found.candidates.capabilities} == set(CAPABILITIES)
    assert all(found.candidates.evidence[name] for name in CAPABILITIES)


def test_each_episode_was_labelled_by_hand(episodes):
    assert len(LABELS) == len(episodes) == 60 and {len(letters) for letters in LABELS.values()} == {len(CAPABILITIES)}


def test_the_recorded_designer_writes_the_modules_that_stand_here(settings, episodes, found):
    calls = record.RUN / "environments" / "model_calls.jsonl"
    designer = make_designer(settings.synthesis, llm=settings.llm, record=calls, seed=settings.seed)
    own, unsorted = settings.target.design, read_episodes(record.RUN / "base_rollouts.jsonl")
    target = load_target(own.entry_point, own.parameters)
    for selected in found.selected:
        evidence = Evidence(unsorted, frozenset(selected.failed_examples))
        design = designer.design(make_brief(selected.capability, own, target, evidence, compact), ())
        module, more = MODULES[selected.capability.name]
        assert design.source.partition("\n")[2] == (MODULE_FILES / module).read_text()
        assert design.entry_point == f"sandbox:{more['class_name']}"


@pytest.mark.slow
@pytest.mark.parametrize("capability", MODULES)
def test_every_module_passes_every_gate_of_the_calendar(capability, settings):
    module, more = MODULES[capability]
    made = getattr(import_module(f"examples.calendar_llm.{module.removesuffix('.py')}"), more["class_name"])
    target = load_target(settings.target.environment, settings.target.arguments())
    knobs = {knob["parameter"]: knob["first"] for knob in more["knobs"]}
    tools = target.environment("train").tools
    checks = run_gates(lambda: made(**knobs), tools, target.results, range(16), conversations(target))
    assert {check.name: check.detail for check in checks if not check.passed} == {}


@pytest.mark.slow
def test_the_answers_are_recorded_anew_as_they_stand(tmp_path):
    shutil.copy(record.RUN / "base_rollouts.jsonl", tmp_path)
    record.main(tmp_path)
    for name in ("analysis", "environments"):
        old, new = (set(keys(run / name / "model_calls.jsonl")) for run in (record.RUN, tmp_path))
        assert old == new


def keys(path):
    from trace_jax.contract.files import read_records
    from trace_jax.contract.llm import ModelCall

    return [call.key for call in read_records(path, ModelCall)]


@pytest.mark.slow
def test_the_recorded_run_goes_from_failures_to_routed_adapters(tmp_path):
    """A short training: what is claimed is that every stage runs on recorded answers and no endpoint."""
    small = {
        "training.max_steps": 1,
        "training.groups_per_step": 2,
        "training.num_generations": 2,
        "target.held_out_tasks": 2,
        "routing.prompts": 24,
    }
    command = [sys.executable, "-m", "launch.replay", f"--recorded={record.RUN}"]
    command += ["--config=configs/calendar_llm.py", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{name}={value}" for name, value in small.items()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert {path.parent.name for path in (tmp_path / "run" / "adapters").glob("*/adapter.json")} == SELECTED
    assert (tmp_path / "run" / "routing" / "route_table.json").exists()
