"""Groups slower than ``group_seconds``: they join a later step or are given up, and no step stalls or goes without."""

import asyncio
import time

import pytest
import toy
from remote import Remote
from test_async import rows_of

from trace_jax.environments.protocol import Outcome
from trace_jax.training.versions import version_of

SEED = "/4"  # one of the four of an epoch


def late_run(directory, engine, steps, report=lambda step: None, **settings):
    """Rows of a run in which every group is learnt from or dropped, or late still."""
    reports = []

    def progress(step):
        reports.append(step)
        report(step)

    late = dict(groups_per_step=4, max_recollections=0, group_seconds=0.3)
    toy.run(directory, engine=engine, max_steps=steps, progress=progress, **(late | settings))
    rows, last = rows_of(directory), reports[-1].counters
    passed = sum(row["groups/collected"] + row["groups/dropped"] for row in rows) + rows[-1]["groups/late"]
    assert passed == last.groups == 4 * steps and last.rollouts == rows[-1]["rollouts"] == 16 * steps
    assert last.late == rows[-1]["groups/late"] and engine.held == []
    assert max(row["staleness/max"] for row in rows) <= settings["max_staleness"]
    return rows


def test_late_groups_do_not_stall_a_step_and_join_a_later_one(tmp_path, learnt):
    engine = Remote(lambda affinity: not affinity.endswith(SEED) or len(engine.held) > 2)
    rows = late_run(tmp_path, engine, 5, max_staleness=5)
    assert [row["groups/late"] >= late for row, late in zip(rows, (1, 2, 0, 0, 0), strict=True)]
    assert not any(row["groups/dropped"] for row in rows) and any(row["groups/collected"] > 4 for row in rows)
    joined = {(step, segment.adapter) for step, episode in learnt if episode.seed == 4 for segment in episode.segments}
    assert min(step for step, _ in joined) >= 2
    assert {adapter for _, adapter in joined} >= {"toy-adapter@0", "toy-adapter@2"}  # finished with a next version


@pytest.mark.parametrize("bound", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_late_groups_too_old_for_the_next_step_are_dropped(tmp_path, learnt, bound):
    engine = Remote(lambda affinity: not affinity.endswith(SEED))
    rows = late_run(tmp_path, engine, 5, max_staleness=bound)
    assert sum(row["groups/dropped"] for row in rows) + rows[-1]["groups/late"] >= 5
    assert max(row["groups/late"] for row in rows) <= bound  # none waits for a step that may not learn from it
    assert not [episode for _, episode in learnt if episode.seed == 4]


def test_what_is_dropped_is_given_up_in_the_engine(tmp_path):
    engine, still_open = Remote(lambda affinity: not affinity.endswith(SEED)), []
    rows = late_run(
        tmp_path, engine, 3, report=lambda _: still_open.append(engine.open), group_seconds=1.0, max_staleness=0
    )
    assert [row["groups/dropped"] for row in rows] == [1, 1, 1] and still_open == [0, 0, 0]


@pytest.mark.parametrize("bound", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_late_group_is_as_old_as_its_first_turn(tmp_path, bound):
    second = []

    class Holding(Remote):
        """Answers every fourth group's first turns when there is a new version, its second ones when it is too old."""

        async def generate(self, token_ids, sampling, adapter=None, *, affinity=""):
            if int(affinity.rpartition("/")[2]) % 4 == 0:
                opening, version = begun.setdefault(affinity, (token_ids, version_of(adapter)))
                if token_ids != opening and version_of(adapter) > version:
                    second.append(affinity)
                while version_of(self.held[-1]) < version + (1 if token_ids == opening else bound + 1):
                    await asyncio.sleep(0.01)
            return await super().generate(token_ids, sampling, adapter, affinity=affinity)

    begun = {}
    rows = late_run(tmp_path, Holding(), 6, environments=[toy.training_environment(seeds=None)], max_staleness=bound)
    assert second and sum(row["groups/dropped"] for row in rows) >= 3


def test_a_step_waits_for_one_group_where_all_are_late(tmp_path):
    class Slow(Remote):
        async def generate(self, *args, **settings):
            await asyncio.sleep(0.1 if settings["affinity"].endswith("/3") else 0.5)
            return await super().generate(*args, **settings)

    rows = late_run(tmp_path, Slow(), 3, group_seconds=0.05, max_staleness=5)
    assert all(row["groups/collected"] >= 1 for row in rows) and rows[0]["groups/late"] >= 1


def test_a_group_that_broke_does_not_stop_a_run_whose_others_are_late(tmp_path):
    class Desk(toy.Toy):
        def reset(self, seed):
            if seed == 5:
                raise RuntimeError("task 5 has no data")
            return super().reset(seed)

    opens = time.monotonic() + 1.0
    engine = Remote(lambda affinity: time.monotonic() > opens)
    rows = late_run(tmp_path, engine, 3, environment=Desk, max_staleness=5)
    assert rows[0]["rollout/broken"] == 4 and all("reward/mean" in row for row in rows)


def test_where_all_of_a_step_broke_late_groups_of_the_step_before_are_waited_for(tmp_path):
    class Desk(toy.Toy):
        def reset(self, seed):  # of a group, its number
            if 4 <= seed < 8:
                raise RuntimeError("no data")
            return super().reset(seed)

    broke = []
    engine = Remote(lambda affinity: not affinity.endswith("/0") or (broke and time.monotonic() > broke[0] + 2.5))
    rows = late_run(
        tmp_path, engine, 3, report=lambda _: broke.append(time.monotonic()),
        environments=[toy.training_environment(Desk, None)], group_seconds=1.0, max_staleness=1)  # fmt: skip
    assert [(row["groups/collected"], row["groups/late"]) for row in rows] == [(3, 1), (5, 0), (4, 0)]
    assert [row["rollout/broken"] for row in rows] == [0, 16, 0]


def test_a_second_round_of_slow_groups_does_not_stall_a_step(tmp_path):
    class Constant(toy.Toy):
        def grade(self):
            return Outcome(0.5)

    engine = Remote(lambda affinity: affinity.endswith(("/0", "/1", "/2")))
    toy.run(tmp_path, engine=engine, environments=[toy.training_environment(Constant, None)],
            max_steps=1, groups_per_step=4, max_recollections=1, group_seconds=1.0)  # fmt: skip
    (row,) = rows_of(tmp_path)
    assert (row["groups/collected"], row["groups/dropped"], row["rollouts"]) == (3, 1 + 3, 28)
    assert row["time/collect_seconds"] < 20


def test_late_groups_lost_with_a_run_are_counted(tmp_path):
    engine = Remote(lambda affinity: not affinity.endswith(SEED))

    def stop(report):
        if report.counters.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path, engine=engine, progress=stop, max_steps=4, groups_per_step=4, max_recollections=0,
                group_seconds=0.3, max_staleness=5)  # fmt: skip
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    late = rows_of(tmp_path)[saved - 1]["groups/late"]
    rows = late_run(tmp_path, engine, 4, max_staleness=5)
    assert late > 0 and [row["groups/dropped"] for row in rows] == [
        late if row["step"] == saved + 1 else 0 for row in rows
    ]
