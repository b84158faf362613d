"""Claims: a benchmark's target scores as the benchmark does, its episodes repeat exactly, and share nothing.

The benchmarks are the real ones. Each has a Python of its own, which ``make targets`` installs.
"""

import json

import pytest
from foreign import conformance
from jsonschema import Draft202012Validator

NAMES = ("bfcl", "agentdojo")
TASKS = {"bfcl": 800, "agentdojo": 97}
IDLE = {"bfcl": 0, "agentdojo": 5}
SAMPLE = {"bfcl": 200, "agentdojo": 20}  # damaged solutions whose grades are compared
_PARTS = ("gold", "idle", "interleaved=32", "digest=30", "faults", "facts")


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def found(name):
    parts = (*_PARTS, f"partial={SAMPLE[name]}")
    return dict(zip((part.partition("=")[0] for part in parts), conformance(name, *parts), strict=True))


def test_every_solution_passes(name, found):
    assert found["gold"]["tasks"] == TASKS[name]
    assert found["gold"]["failed"] == []


def test_doing_nothing_passes_what_the_target_declares(name, found):
    assert found["idle"]["passed"] == found["idle"]["declared"]
    assert len(found["idle"]["passed"]) == IDLE[name]


def agrees(found, count):
    assert found["judged"] == count
    assert count / 5 < found["passed"] < count * 9 / 10  # both verdicts are compared
    assert found["differ"] == []


def test_damaged_solutions_get_the_benchmarks_own_grade(name, found):
    agrees(found["partial"], SAMPLE[name])


@pytest.mark.slow  # a minute for AgentDojo
def test_many_damaged_solutions_get_the_benchmarks_own_grade(name):
    [found] = conformance(name, "partial=500" if name == "bfcl" else "partial=200")
    agrees(found, 500 if name == "bfcl" else 200)


def test_episodes_at_once_leak_nothing(found):
    assert found["interleaved"]["episodes"] == 32
    assert found["interleaved"]["leaked"] == []


def test_the_same_task_gives_the_same_episode_in_another_process(name, found):
    [other] = conformance(name, "digest=30", hash_seed=1)
    assert other["digest"] == found["digest"]["digest"]


def test_odd_calls_get_an_answer_each_and_break_nothing(name, found):
    answers = found["faults"]["answers"]
    assert [answer[:2] for answer in answers] == [["tool", id] for id in "abcd"]
    for _, _, text in answers[:2]:
        assert "not defined" in text or "Invalid tool" in text
    assert "not a JSON object" in answers[2][2]
    assert found["faults"]["reward"] == 1.0


def test_splits_share_no_task_and_hold_all(name, found):
    train, held_out = found["facts"]["splits"]["train"], found["facts"]["splits"]["held_out"]
    assert len({*train, *held_out}) == len(train) + len(held_out) == TASKS[name]
    assert abs(len(train) - len(held_out)) <= 1


def test_tools_and_results_are_json_schemas_that_real_answers_fit(found):
    tools, results = found["facts"]["tools"], found["facts"]["results"]
    assert {tool["name"] for tool in tools} == set(results)
    for tool in tools:
        Draft202012Validator.check_schema(tool["parameters"])
        assert tool["parameters"]["type"] == "object"
    for tool, answers in found["facts"]["answered"].items():
        Draft202012Validator.check_schema(results[tool])
        validator = Draft202012Validator(results[tool])
        for answer in answers:
            assert validator.is_valid(read(answer)), (tool, answer)


def read(answer):
    """JSON, or else the text itself."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer


def test_the_version_names_the_package_and_its_task_files(name, found):
    package, version, digest = found["facts"]["version"].split()
    assert (package, version) == {"bfcl": ("bfcl-eval", "2026.3.23"), "agentdojo": ("agentdojo", "0.1.35")}[name]
    assert digest.startswith("sha256:") and len(digest) == 71
