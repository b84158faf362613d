"""Two real processes train what one process trains, and go on with what the other left; killed or told to stop, too."""

import json
import signal
import sys
import time
from pathlib import Path

import jax
import pytest
import toy_job
from test_together import assert_same, outcome

sys.path.append(str(Path(__file__).parents[1] / "parallel"))
import pair  # noqa: E402

PROGRAM = toy_job.__file__
MESH, OTHER = dict(data=2, fsdp=2), dict(data=1, fsdp=4)


def one_process(directory, mesh=MESH, **settings):
    toy_job.run(directory, mesh=mesh, devices=jax.devices()[:4], **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process with four devices makes of it."""
    directory = tmp_path_factory.mktemp("whole")
    one_process(directory)
    return outcome(directory)


def read_until(process, line):
    """Wait for a line of its output."""
    for found in process.stdout:
        if found.strip() == line:
            return
    raise AssertionError(f"ended without {line!r}: {process.stderr.read()[-3000:]}")


def test_two_processes_make_what_one_makes(whole, tmp_path):
    printed = pair.run(PROGRAM, json.dumps([{"directory": str(tmp_path), "mesh": MESH}]))
    assert [text.count("done 4") for text in printed] == [1, 1]  # four devices in all
    assert_same(outcome(tmp_path), whole, 1e-5)


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_left_and_the_other_way_round(whole, tmp_path):
    one_process(tmp_path / "taken_on", OTHER, max_steps=1)
    runs = [
        {"directory": str(tmp_path / "taken_on"), "mesh": MESH},
        {"directory": str(tmp_path / "handed_on"), "mesh": MESH, "max_steps": 1},
    ]
    pair.run(PROGRAM, json.dumps(runs))
    assert_same(outcome(tmp_path / "taken_on"), whole, 1e-5)
    exported = outcome(tmp_path / "handed_on")
    (tmp_path / "handed_on" / "early" / "adapter.json").unlink()
    one_process(tmp_path / "handed_on", OTHER, max_steps=1)  # which only exports, from the checkpoint
    assert_same(outcome(tmp_path / "handed_on"), exported, 0.0)
    toy_job.run(tmp_path / "handed_on")  # on one device
    assert_same(outcome(tmp_path / "handed_on"), whole, 1e-5)


@pytest.mark.slow
def test_two_processes_train_beside_the_rollouts_of_the_first(tmp_path):
    pair.run(PROGRAM, json.dumps([{"directory": str(tmp_path), "mesh": MESH, "max_staleness": 1}]))
    for name in toy_job.NAMES:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [(row["step"], row["rollouts"]) for row in rows] == [(1, 8), (2, 16), (3, 24)]
        assert max(row["staleness/max"] for row in rows) == 1.0
        assert all(row["mismatch/max_abs_delta"] < 1e-4 for row in rows)


@pytest.mark.slow
def test_sigterm_to_one_process_ends_all_with_143_and_the_run_goes_on(whole, tmp_path):
    started = pair.start(PROGRAM, json.dumps([{"directory": str(tmp_path), "mesh": MESH, "slow": 0.2}]))
    read_until(started[0], "late 1")
    started[1].send_signal(signal.SIGTERM)
    ended = pair.finish(started)
    assert [process.returncode for process, _, _ in ended] == [143, 143], ended[1][2][-2000:]
    assert not list(tmp_path.glob("*/checkpoints/*tmp*")) and not (tmp_path / "early" / "adapter.json").exists()
    one_process(tmp_path)
    assert_same(outcome(tmp_path), whole, 1e-5)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_with_an_error_and_the_run_goes_on(whole, tmp_path):
    started = pair.start(PROGRAM, json.dumps([{"directory": str(tmp_path), "mesh": MESH, "killed": [1, 2]}]))
    begun = time.monotonic()
    ended = pair.finish(started)
    assert time.monotonic() - begun < 120
    assert ended[1][0].returncode == -signal.SIGKILL and ended[0][0].returncode not in (0, None)
    one_process(tmp_path, OTHER)
    assert_same(outcome(tmp_path), whole, 1e-5)


@pytest.mark.slow  # tests/parallel/test_checkpoints and test_resume hold it in parts
def test_killed_while_a_checkpoint_is_written_the_one_before_is_in_force(tmp_path):
    toy_job.run(tmp_path / "whole")
    killed = tmp_path / "killed"
    runs = [{"directory": str(killed), "hold": 2}]
    (process,) = started = pair.start(PROGRAM, json.dumps(runs), processes=1, devices=1)
    for _ in toy_job.NAMES:
        read_until(process, "held")
    process.kill()
    pair.finish(started)
    for name in toy_job.NAMES:
        directory = killed / name / "checkpoints"
        assert [path.name for path in directory.iterdir() if path.name.isdigit()] == ["1"]
        (torn,) = directory.glob("2*tmp*")
        assert list(torn.rglob("manifest.ocdbt"))  # all is written but the name
    steps = []
    toy_job.run(killed, progress=lambda report: steps.append(report.counters.step))
    assert steps == [2, 2, 3, 3]
    assert_same(outcome(killed), outcome(tmp_path / "whole"), 0.0)
    assert not list(killed.glob("*/checkpoints/*tmp*"))
