"""Rollouts beside updates: never staler than allowed, every group once, and nothing left behind whatever happens."""

import json
import os
import random
import signal
import time
from collections import Counter

import pytest
import toy
import toy_job
from remote import Remote
from test_resume import _killed

from trace_jax.parallel.termination import Terminated, Termination
from trace_jax.training.learner import Learner
from trace_jax.training.versions import version_of


def rows_of(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def slow_updates(monkeypatch, engine, seconds=1.0):
    """Every update waits until the engine is asked something, at most ``seconds``: (start, end) of each."""
    spans, real = [], Learner.update

    def update(self, samples):
        started, asked = time.monotonic(), len(engine.asked)
        while len(engine.asked) == asked and time.monotonic() < started + seconds:
            time.sleep(0.01)
        metrics = real(self, samples)
        spans.append((started, time.monotonic()))
        return metrics

    monkeypatch.setattr(Learner, "update", update)
    return spans


@pytest.mark.parametrize("bound", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_rollouts_go_on_during_updates_and_no_token_is_staler_than_allowed(tmp_path, learnt, monkeypatch, bound):
    engine = Remote(lambda affinity: random.random() < 0.1)
    updates = slow_updates(monkeypatch, engine, 1.0 if bound else 0.2)
    manifest = toy.run(tmp_path, engine=engine, max_steps=5, max_recollections=0, max_staleness=bound)
    assert manifest.rollouts == 5 * 12 and engine.held == [] and engine.most == bound + 1
    during = [any(start < asked < end for start, end in updates) for asked in engine.asked]
    assert any(during) == (bound > 0)
    sampled, ages = set(engine.said), Counter()
    for step, trajectory in learnt:
        segments = [segment for segment in trajectory.segments if segment.trained]
        assert trajectory.policy.adapter == segments[0].adapter
        versions = [version_of(segment.adapter) for segment in segments]
        assert versions == sorted(versions)
        for segment, version in zip(segments, versions, strict=True):
            assert (segment.adapter, segment.tokens) in sampled  # by the version that it names
            ages[step - version] += len(segment.tokens)
    assert min(ages) >= 0 and max(ages) == bound
    if bound:
        turned = [{s.adapter for s in trajectory.segments if s.trained} for _, trajectory in learnt]
        assert max(map(len, turned)) == 2  # episodes that went on with the next version
    rows = rows_of(tmp_path)
    assert [row["staleness/max"] for row in rows] == [min(bound, step) for step in range(5)]
    assert sum(row["staleness/mean"] > 0 for row in rows) == (4 if bound else 0)
    assert all(row["mismatch/max_abs_delta"] < 1e-4 for row in rows)  # whichever version sampled
    assert [("staleness/max_abs_delta" in row) for row in rows] == [row["staleness/max"] > 0 for row in rows]


def numbers(learnt):
    """Groups by step."""
    found = {}
    for step, trajectory in learnt:
        found.setdefault(step, set()).add(int(trajectory.id.split("/")[1]))
    return found


def test_a_run_that_was_stopped_plays_again_what_was_in_flight_and_counts_nothing_twice(tmp_path, learnt):
    def stop(report):
        if report.counters.step == 3:
            raise KeyboardInterrupt

    settings = dict(max_steps=6, max_staleness=1, max_recollections=1, engine=Remote())
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, progress=stop, **settings)
    assert settings["engine"].held == []
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    before = numbers(learnt)
    learnt.clear()
    manifest = toy.run(tmp_path, **settings)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert manifest.rollouts == rows[-1]["rollouts"] == 4 * sum(row["groups/collected"] for row in rows)
    after = numbers(learnt)
    assert min(after) == saved
    by_step = {**{step: groups for step, groups in before.items() if step < saved}, **after}
    assert sum(len(groups) for groups in by_step.values()) == len(set().union(*by_step.values()))
    ends = 0
    for step, row in enumerate(rows):  # each step has the next numbers
        start, ends = ends, ends + int(row["groups/collected"])
        assert by_step.get(step, set()) <= set(range(start, ends))


def test_killed_by_sigkill_in_flight_it_goes_on(tmp_path):
    settings = {"max_steps": 4, "max_recollections": 0, "max_staleness": 1}
    assert _killed(tmp_path, at_reset=40, **settings) == [1, 2]
    manifest = toy.run(tmp_path, **settings)
    assert (manifest.steps, manifest.rollouts) == (4, 48)
    assert [(row["step"], row["rollouts"]) for row in rows_of(tmp_path)] == [(1, 12), (2, 24), (3, 36), (4, 48)]


def test_recorded_groups_are_used_up_first_and_the_bound_holds_behind_them(tmp_path, learnt):
    manifest = toy.run(tmp_path, recorded=toy.base_groups(4), max_steps=4, max_recollections=0, max_staleness=1)
    assert (manifest.steps, manifest.rollouts) == (4, 24)
    assert all(
        step - version_of(segment.adapter) <= 1
        for step, trajectory in learnt
        if step >= 2
        for segment in trajectory.segments
        if segment.trained
    )


@pytest.mark.parametrize("budget", [25, 30, 33])
def test_rollout_budget_is_never_exceeded(tmp_path, budget):
    manifest = toy.run(tmp_path, max_steps=None, max_rollouts=budget, max_staleness=2, engine=(engine := Remote()))
    assert manifest.rollouts == budget - (budget % 4 == 1)
    assert len(engine.asked) == 2 * manifest.rollouts  # two turns each: none is played for nothing


def test_several_adapters_share_the_engine(tmp_path):
    manifests = toy_job.run(tmp_path, max_steps=4, max_staleness=2)
    assert [(manifest.steps, manifest.rollouts) for manifest in manifests] == [(4, 32), (4, 32)]
    for name in toy_job.NAMES:
        rows = rows_of(tmp_path / name)
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert max(row["staleness/max"] for row in rows) == 2
        assert all(row["mismatch/max_abs_delta"] < 1e-4 < row.get("staleness/max_abs_delta", 1.0) for row in rows)


def test_a_failed_update_and_a_failed_engine_end_the_run_and_leave_nothing_in_the_engine(tmp_path, monkeypatch):
    real = Learner.update

    def update(self, samples):
        if len(engine.asked) > 48:
            raise FloatingPointError("loss is nan")
        return real(self, samples)

    engine = Remote()
    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(FloatingPointError, match="loss is nan"):
        toy.run(tmp_path, engine=engine, max_staleness=1)
    assert engine.held == [] and len(rows_of(tmp_path)) < 5
    monkeypatch.setattr(Learner, "update", real)

    def fail(number):
        if number > 30:
            raise RuntimeError("unplugged")

    engine = Remote(on_request=fail)
    with pytest.raises(RuntimeError, match="unplugged"):
        toy.run(tmp_path, engine=engine, max_staleness=1)
    assert engine.held == []
    assert toy.run(tmp_path, max_staleness=1).steps == 5


@pytest.mark.parametrize("during", ["update", "rollouts"])
def test_sigterm_lets_an_update_finish_or_gives_up_rollouts(tmp_path, monkeypatch, during):
    real, steps = Learner.update, []

    def update(self, samples):
        if during == "update" and len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return real(self, samples)

    def kill(number):
        if during == "rollouts" and number == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Learner, "update", update)
    engine = Remote(on_request=kill)
    settings = dict(max_staleness=1, max_steps=5, max_recollections=0)
    with Termination() as termination, pytest.raises(Terminated):
        toy.run(tmp_path, engine=engine, termination=termination, progress=steps.append, **settings)
    assert engine.held == [] and len(steps) == (3 if during == "update" else 0)
    resumed = []
    toy.run(tmp_path, progress=resumed.append, **settings)
    assert [report.counters.step for report in resumed] == list(range(len(steps) + 1, 6))
