"""Adapters trained in one run: each learns as it would alone, and a run stopped anywhere ends as one that was not."""

import json

import jax
import numpy as np
import pytest
import toy
import toy_job
from safetensors.numpy import load_file

from trace_jax.errors import UserError
from trace_jax.telemetry.metrics import read_metrics


def outcome(directory):
    """Metrics, times apart, and weights of every adapter in a directory."""
    found = {}
    for path in sorted(directory.glob("*/adapter.json")):
        rows = read_metrics(path.parent)
        metrics = {(step, name): value for step, row in rows.items() for name, value in row.items()
                   if not name.startswith("time/")}  # fmt: skip
        found[path.parent.name] = metrics, load_file(path.parent / "peft" / "adapter_model.safetensors")
    return found


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys() and found
    for name in expected:
        for part, theirs in zip(found[name], expected[name], strict=True):
            assert part.keys() == theirs.keys()
            for key in theirs:
                np.testing.assert_allclose(part[key], theirs[key], rtol=0, atol=tolerance, err_msg=f"{name} {key}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    toy_job.run(directory)
    return outcome(directory)


def test_each_learns_as_it_would_alone(whole, tmp_path):
    for name in toy_job.NAMES:
        toy_job.run(tmp_path, [name])
    assert_same(outcome(tmp_path), whole, 1e-5)
    assert [step for step, name in whole["early"][0] if name == "step" or name == "loss"] == [1, 2, 3]
    weights = [pair[1] for pair in whole.values()]
    assert max(np.abs(weights[0][key] - weights[1][key]).max() for key in weights[0]) > 1e-2


_RARER = [pytest.param(stopped, marks=pytest.mark.slow) for stopped in (("early", 1), ("early", 3))]


@pytest.mark.parametrize("stopped", [("early", 2), ("late", 2), *_RARER], ids=str)
def test_stopped_between_the_checkpoints_of_two_adapters_it_ends_as_if_it_were_not(whole, tmp_path, stopped):
    def stop(report):
        if (report.name, report.counters.step) == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_job.run(tmp_path, progress=stop)
    ahead = max(int(path.name) for path in (tmp_path / "early" / "checkpoints").iterdir())
    others = [int(path.name) for path in (tmp_path / "late" / "checkpoints").iterdir()]
    assert (ahead, max(others, default=0)) == (stopped[1], stopped[1] - (stopped[0] == "early"))
    steps = []
    toy_job.run(tmp_path, progress=lambda report: steps.append((report.name, report.counters.step)))
    # An adapter that is done is not gone back to: the other one catches up alone, with other rows beside its own.
    assert_same(outcome(tmp_path), whole, 1e-5 if stopped == ("early", 3) else 0.0)
    assert steps[0] == (("late", 3) if stopped == ("early", 3) else ("early", max(others, default=0) + 1))


class Learnt(toy.Toy):
    """Nearly perfect, and never twice the same in a group."""

    def grade(self):
        return toy.Outcome(0.99 - super().grade().reward / 100)


def test_one_that_has_finished_does_not_disturb_the_other(tmp_path):
    environments = (Learnt, toy_job.Late)
    settings = dict(environments=environments, max_steps=5, stop_reward=0.95)
    both = toy_job.run(tmp_path / "both", **settings)
    assert [manifest.steps for manifest in both] == [2, 5]
    for name in toy_job.NAMES:
        toy_job.run(tmp_path / "alone", [name], **settings)
    assert_same(outcome(tmp_path / "both"), outcome(tmp_path / "alone"), 1e-5)
    rows = [json.loads(line) for line in (tmp_path / "both/early/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_adapters_that_cannot_be_brought_together_are_named(tmp_path):
    toy_job.run(tmp_path, ["early"], max_steps=4)
    with pytest.raises(UserError, match="early has no checkpoint of step 1.*train them apart"):
        toy_job.run(tmp_path, ["late"], max_steps=1)
        toy_job.run(tmp_path, max_steps=6)
    with pytest.raises(UserError, match="training.max_to_keep is 1, too few for 2 adapters"):
        toy_job.run(tmp_path / "one", max_to_keep=1)


@pytest.mark.parametrize(("change", "named"), [
    ({"rank": 2}, "late/checkpoints/1: checkpoint has rank 4, this run has 2"),
    ({"target_modules": ("q_proj",)}, r"late/checkpoints/1: .* target_modules \[.*\], this run has \['q_proj'\]"),
])  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused_by_the_adapter_that_has_it(tmp_path, change, named):
    toy_job.run(tmp_path, ["late"], max_steps=1)
    with pytest.raises(UserError, match=named):
        toy_job.run(tmp_path, **change)


@pytest.mark.parametrize(("poisoned", "named"), [
    ("delta", "^late: log-probability is nan"),
    ("loss", "^late: loss is nan"),
    ("gradient", "^late: gradient of k_proj.b is not finite"),
])  # fmt: skip
def test_what_is_not_finite_is_named_with_its_adapter_before_any_checkpoint(tmp_path, monkeypatch, poisoned, named):
    from trace_jax.training import learner

    real, calls = learner.gradient_function, []

    def function(*key):
        def gradients(*arguments):
            gradient, terms = real(*key)(*arguments)
            calls.append(1)
            if poisoned != "gradient":
                terms[poisoned] = terms[poisoned].at[1].set(np.nan)
            else:
                gradient["k_proj"]["b"] = gradient["k_proj"]["b"].at[1].set(np.nan)
            return gradient, terms

        return gradients

    toy_job.run(tmp_path, max_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "compiles" not in path.name}
    monkeypatch.setattr(learner, "gradient_function", function)
    with pytest.raises(FloatingPointError, match=named):
        toy_job.run(tmp_path, max_steps=2)
    assert calls
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "compiles" not in path.name}
    assert after == before


def test_a_sharded_run_that_goes_on_from_one_device_equals_one_device(whole, tmp_path):
    toy_job.run(tmp_path, max_steps=1)
    toy_job.run(tmp_path, mesh=dict(data=2, fsdp=2), devices=jax.devices()[:4])
    assert_same(outcome(tmp_path), whole, 1e-5)
