"""Whole runs on a toy: counting, budgets, exports, failures."""

import asyncio
import json
import shutil
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
import toy

from trace_jax.contract.adapter import MANIFEST, AdapterManifest
from trace_jax.contract.files import read_document
from trace_jax.engines.protocol import Sampling
from trace_jax.errors import EngineError, UserError
from trace_jax.models.formats.peft import load_peft


def _rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_run_learns_and_leaves_a_manifest_metrics_and_an_adapter_that_loads(tmp_path):
    settings = {"groups_per_step": 4, "num_generations": 8, "learning_rate": 3e-2, "micro_batch_tokens": 2048}
    manifest = toy.run(tmp_path, max_steps=15, **settings)
    assert read_document(tmp_path / MANIFEST, AdapterManifest) == manifest
    rows = _rows(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 16))
    rewards = [row["reward/mean"] for row in rows]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.04  # four standard errors
    assert all(row["mismatch/max_abs_delta"] < 1e-4 for row in rows)
    assert manifest.rollouts == rows[-1]["rollouts"] and manifest.steps == 15
    assert manifest.metrics["reward/mean"] == rows[-1]["reward/mean"]
    decoder, _, engine = toy.parts()
    lora = load_peft(tmp_path / manifest.peft, decoder.config, manifest.base)
    assert lora.rank == 4 and any(np.abs(pair["b"]).max() > 0 for pair in lora.weights.values())
    assert (tmp_path / manifest.checkpoint / "15").is_dir()
    with pytest.raises(EngineError, match="not loaded"):  # nothing of the run stays in the engine
        asyncio.run(engine.generate((1,), Sampling(1), "toy-adapter@11"))


@pytest.mark.parametrize("budget", [12, 31, 32, 33, 34])
def test_rollout_budget_is_spent_and_never_exceeded(tmp_path, budget):
    manifest = toy.run(tmp_path, max_steps=None, max_rollouts=budget, max_recollections=3)
    lone = budget % 4 == 1  # one rollout alone has no group
    assert manifest.rollouts == budget - lone
    assert _rows(tmp_path)[-1]["rollouts"] == manifest.rollouts


def test_snapshots_at_fractions_of_the_budget(tmp_path):
    toy.run(tmp_path, max_steps=None, max_rollouts=48, max_recollections=0, snapshots=(0.25, 0.5, 1.0))
    paths = tmp_path.glob("snapshots/*/adapter.json")
    found = {path.parent.name: read_document(path, AdapterManifest) for path in paths}
    assert sorted(found) == ["00000012", "00000024", "00000048"]
    assert [found[name].rollouts for name in sorted(found)] == [12, 24, 48]
    assert len({manifest.name for manifest in found.values()}) == 3
    for name, manifest in found.items():
        load_peft(tmp_path / "snapshots" / name / manifest.peft, toy.parts()[0].config)
        assert (tmp_path / "snapshots" / name / manifest.checkpoint).resolve() == tmp_path / "checkpoints"
    last, final = (path / "peft" / "adapter_model.safetensors" for path in (tmp_path / "snapshots/00000048", tmp_path))
    assert last.read_bytes() == final.read_bytes()


def test_what_the_base_has_played_is_the_first_batch_of_an_adapter(tmp_path):
    settings = dict(max_steps=1, max_recollections=0)
    own = toy.run(tmp_path / "own", **settings)
    given = toy.run(tmp_path / "given", recorded=toy.base_groups(3), **settings)
    assert (own.rollouts, given.rollouts) == (12, 0)
    weights = [(tmp_path / name / "peft/adapter_model.safetensors").read_bytes() for name in ("own", "given")]
    assert weights[0] == weights[1]  # an adapter that has learnt nothing is the base


def test_recorded_groups_are_used_up_then_new_ones_are_collected(tmp_path):
    recorded = toy.base_groups(4)  # a step of three, one of the last
    settings = dict(max_steps=None, max_rollouts=24, max_recollections=0, stop_reward=0.01, recorded=recorded)
    manifest = toy.run(tmp_path / "whole", **settings)
    rows = _rows(tmp_path / "whole")
    assert [row["rollouts"] for row in rows] == [0, 0, 12, 24]  # neither spends the budget nor counts as learnt
    means = [np.mean([group.rewards for group in groups]) for groups in (recorded[:3], recorded[3:])]
    assert [row["reward/mean"] for row in rows[:2]] == pytest.approx(means)
    assert rows[0]["mismatch/max_abs_delta"] < 1e-4 < rows[1]["staleness/max_abs_delta"]  # one step off policy
    assert rows[1]["staleness/share"] == rows[1]["staleness/max"] == 1.0 and rows[1]["mismatch/max_abs_delta"] < 1e-4

    def stop(report):
        if report.counters.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "stopped", progress=stop, **settings)
    assert toy.run(tmp_path / "stopped", **settings) == manifest
    with pytest.raises(UserError, match="recorded"):
        toy.run(tmp_path / "stopped", **settings | {"recorded": recorded[:3]})


class Good(toy.Toy):
    """The reward is 0.9 in steps 1, 3 and 4 of 12 episodes each, else 0.2."""

    def grade(self):
        return toy.Outcome(0.9 if (type(self).resets - 1) // 12 in (0, 2, 3) else 0.2)


@pytest.mark.parametrize("stop_reward,steps", [(0.9, 4), (0.95, 6), (None, 6)])
def test_what_is_learnt_is_not_trained_on(tmp_path, stop_reward, steps):
    Good.resets = 0
    rollout = replace(toy.ROLLOUT, concurrency=12)
    settings = dict(
        environment=Good, max_steps=6, max_recollections=0, stop_reward=stop_reward, rollout=rollout)  # fmt: skip
    manifest = toy.run(tmp_path, **settings)
    assert (manifest.steps, manifest.rollouts) == (steps, 12 * steps)
    assert toy.run(tmp_path, **settings) == manifest  # a finished run stays finished


class Learnt(toy.Toy):
    """Always nearly perfect: every group is constant."""

    def grade(self):
        return toy.Outcome(0.95)


def test_constant_groups_of_what_is_learnt_are_not_replaced(tmp_path):
    manifest = toy.run(tmp_path, environment=Learnt, max_steps=6, max_recollections=3, stop_reward=0.9)
    assert (manifest.steps, manifest.rollouts) == (2, 24)


class Constant(toy.Toy):
    def grade(self):
        return toy.Outcome(0.5)


def test_constant_groups_teach_nothing_and_are_recollected_and_counted(tmp_path):
    manifest = toy.run(tmp_path, environment=Constant, max_steps=1, max_recollections=3)
    assert manifest.rollouts == 4 * 3 * 4  # one round and three more, of 3 groups of 4
    (row,) = _rows(tmp_path)
    assert row["groups/live"] == 0.0 and row["groups/collected"] == 12 and "loss" not in row
    lora = load_peft(tmp_path / "peft", toy.parts()[0].config)
    assert all(np.abs(pair["b"]).max() == 0 for pair in lora.weights.values())


class Rounded(toy.Toy):
    """A grader that sums up: the same reward, up to the order of the summands."""

    def grade(self):
        return toy.Outcome(0.5 - (0.0, 1e-16, 5e-17, 1e-7)[type(self).resets % 4])


def test_groups_whose_rewards_differ_by_rounding_are_constant(tmp_path):
    manifest = toy.run(tmp_path, environment=Rounded, max_steps=1, max_recollections=1)
    (row,) = _rows(tmp_path)
    assert (manifest.rollouts, row["groups/live"], row["groups/collected"]) == (24, 0.0, 6) and "loss" not in row


class Flaky(toy.Toy):
    def grade(self):
        if "9" in self.answers[0] or len(self.answers[0]) % 2:
            raise RuntimeError("grader is down")
        return super().grade()


class NotANumber(toy.Toy):
    def grade(self):
        return toy.Outcome(float("nan"))


def test_broken_episodes_are_counted_and_not_trained_on(tmp_path):
    manifest = toy.run(tmp_path, environment=Flaky, max_steps=2, max_recollections=0)
    rows = _rows(tmp_path)
    assert manifest.rollouts == 24 and 0 < sum(row["rollout/broken"] for row in rows) < 24


def test_run_whose_rollouts_all_break_stops_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="all 24 rollouts broke.*reward nan is not in"):
        toy.run(tmp_path, environment=NotANumber, max_steps=2)
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize(("change", "named"), [
    ({"base": "base-2"}, "base 'base-1'.*'base-2'"),
    ({"rank": 2}, "rank 4.*2"),
    ({"target_modules": ("q_proj", "v_proj")}, "target_modules .*down_proj.*\\['q_proj', 'v_proj'\\]"),
    ({"seed": 12}, "seed 11.*12"),
])  # fmt: skip
def test_checkpoint_of_another_run_is_refused_with_both_values(tmp_path, change, named):
    toy.run(tmp_path, max_steps=1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=named):
        toy.run(tmp_path, **({"max_steps": 2} | change))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_damaged_line_of_metrics_and_a_damaged_checkpoint_stop_a_resume_with_the_file(tmp_path):
    toy.run(tmp_path, max_steps=2)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00\x00\n")
    with pytest.raises(UserError, match=f"{path}:3: not a line of metrics"):
        toy.run(tmp_path, max_steps=3)
    path.write_bytes(whole)
    last = tmp_path / "checkpoints" / "2"
    (last / "state" / "_METADATA").write_text("{")
    with pytest.raises(UserError, match=f"{last}: checkpoint cannot be read .*remove that directory"):
        toy.run(tmp_path, max_steps=3)
    assert path.read_bytes() == whole
    shutil.rmtree(last)
    steps = []
    toy.run(tmp_path, max_steps=3, progress=lambda report: steps.append(report.counters.step))
    assert steps == [2, 3] and [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]


def test_an_adapter_that_the_engine_refuses_stops_the_run_with_the_reason(tmp_path):
    with pytest.raises(EngineError, match="'toy-adapter@0' holds 1 adapters of rank 5: the engine takes one of rank"):
        toy.run(tmp_path, rank=5, max_steps=1)


def test_nan_stops_before_a_checkpoint_is_written(tmp_path, monkeypatch):
    from trace_jax.training import learner

    real = learner.gradient_function
    calls = []

    def poisoned(*key):
        def gradients(*arguments):
            gradient, terms = real(*key)(*arguments)
            calls.append(1)
            if len(calls) > 4:  # two micro-batches a step: the third step
                gradient["k_proj"]["a"] = gradient["k_proj"]["a"] * jax.numpy.nan
            return gradient, terms

        return gradients

    monkeypatch.setattr(learner, "gradient_function", poisoned)
    with pytest.raises(FloatingPointError, match="gradient of k_proj.a is not finite"):
        toy.run(tmp_path, max_recollections=0)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps and max(steps) == len(_rows(tmp_path)) < 5


def test_two_environments_take_turns(tmp_path):
    seen = Counter()

    def noted(name):
        class Noted(toy.Toy):
            def reset(self, seed):
                seen[name, seed] += 1
                return super().reset(seed)

        return Noted

    environments = [
        toy.training_environment(noted("a"), (1, 2), "a"), toy.training_environment(noted("b"), None, "b")
    ]  # fmt: skip
    manifest = toy.run(tmp_path, environments=environments, max_steps=2, groups_per_step=4, max_recollections=0)
    assert manifest.environments == ("a", "b")
    assert seen == {("a", 1): 8, ("a", 2): 8, ("b", 0): 4, ("b", 1): 4, ("b", 2): 4, ("b", 3): 4}
