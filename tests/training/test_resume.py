"""Killed with SIGKILL and started again, a run ends bit for bit where the uninterrupted one ends."""

import json
import signal

import pytest
import toy
import xla_flags
from programs import run_program


def _killed(directory, *, at_reset=-1, after_step=-1, **settings):
    """Train in another process until it is killed; the steps that it finished."""
    arguments = [str(directory), str(at_reset), str(after_step), json.dumps(settings)]
    done = run_program("tests.training.toy", *arguments, env={"XLA_FLAGS": xla_flags.TESTS})
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def _outcome(directory):
    """Everything that a run leaves, times apart."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for pattern in ("adapter.json", "**/adapter_model.safetensors", "snapshots/*/adapter.json")
        for path in directory.glob(pattern)
    }
    return metrics, files


@pytest.mark.parametrize("save_steps", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_run_ends_where_the_uninterrupted_one_ends(tmp_path, save_steps):
    settings = {"save_steps": save_steps, "max_steps": 5, "max_recollections": 0, "snapshots": (0.6,)}
    toy.run(tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    # 12 rollouts a step: reset 30 is in the middle of step 3.
    assert _killed(broken, at_reset=30, **settings) == [1, 2]
    assert _killed(broken, after_step=4, **settings)[-1] == 4
    resumed = []
    toy.run(broken, progress=lambda report: resumed.append(report.counters.step), **settings)
    assert 0 < len(resumed) < 5
    metrics, files = _outcome(tmp_path / "whole")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5] and len(files) == 4
    assert _outcome(broken) == (metrics, files)


def test_run_killed_between_its_last_checkpoint_and_its_manifest_only_exports(tmp_path):
    toy.run(tmp_path, max_steps=2)
    before = _outcome(tmp_path)
    (tmp_path / "adapter.json").unlink()
    steps = []
    toy.run(tmp_path, max_steps=2, progress=steps.append)
    assert steps == [] and _outcome(tmp_path) == before


def test_a_run_that_goes_on_remembers_that_its_task_is_nearly_learnt(tmp_path):
    settings = {"max_recollections": 0, "stop_reward": 0.01}
    assert toy.run(tmp_path / "whole", max_steps=5, **settings).steps == 2
    assert toy.run(tmp_path / "parted", max_steps=1, **settings).steps == 1
    assert toy.run(tmp_path / "parted", max_steps=5, **settings).steps == 2
    assert _outcome(tmp_path / "parted") == _outcome(tmp_path / "whole")
