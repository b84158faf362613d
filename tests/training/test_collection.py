import numpy as np
import pytest

from trace_jax.contract.trajectory import Policy, Trajectory
from trace_jax.errors import UserError
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.training.collection import collect_groups, group_sizes
from trace_jax.training.group_source import GroupSource, TrainingEnvironment
from trace_jax.training.settings import GRPOConfig


def _environment(seeds, name="g", first_seed=0):
    return TrainingEnvironment(name, object, seeds, "target", "train", first_seed)


def _source(*environments, seed=0):
    return GroupSource(environments, "run", seed, RolloutSettings(max_turn_tokens=8, temperature=0.7))


def test_fixed_tasks_are_walked_in_epochs_shuffled_anew():
    source = _source(_environment(tuple(range(50, 60))))
    epochs = [[source.task_seed(group) for group in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(50, 60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [_source(_environment(tuple(range(50, 60)))).task_seed(group) for group in range(10)] == epochs[0]
    assert [_source(_environment(tuple(range(50, 60))), seed=1).task_seed(group) for group in range(10)] != epochs[0]


def test_endless_tasks_are_fresh():
    source = _source(_environment(None, first_seed=1000), _environment((7,)))
    assert [source.task_seed(group) for group in range(6)] == [1000, 7, 1001, 7, 1002, 7]


def test_rollouts_of_a_group_share_the_task_and_differ_in_sampling():
    source = _source(_environment((3, 4)))
    specs = [spec for group in range(4) for spec in source.specs(group, 8, "run@0")]
    assert len({spec.id for spec in specs}) == len({spec.sampling.seed for spec in specs}) == 32
    assert all(len({spec.seed for spec in specs[i : i + 8]}) == 1 for i in range(0, 32, 8))
    assert {(spec.sampling.max_tokens, spec.sampling.temperature) for spec in specs} == {(8, 0.7)}
    assert {spec.trial for spec in specs} == set(range(8)) and {spec.adapter for spec in specs} == {"run@0"}


def test_group_sizes_never_exceed_the_budget():
    assert group_sizes(4, 8, None) == [8, 8, 8, 8]
    for budget in range(40):
        sizes = group_sizes(4, 8, budget)
        assert min(budget, 32) - 1 <= sum(sizes) <= budget and len(sizes) <= 4 and all(size > 1 for size in sizes)


def _collect(rewards, *, groups=4, size=3, recollections=3, budget=None, stop_reward=None):
    """Collect where group g's rollouts earn ``rewards(g)``; None is a broken rollout. Returns groups and rounds."""
    rounds = []

    def run(specs):
        rounds.append(sorted({group for group, _ in specs}))
        return [_trajectory(rewards(group)[trial]) for group, trial in specs]

    training = GRPOConfig(
        groups_per_step=groups, num_generations=size, max_recollections=recollections, stop_reward=stop_reward
    )
    return collect_groups(_start, run, training, first_group=100, budget=budget), rounds


def _start(group, size):
    return [(group, trial) for trial in range(size)]


def _trajectory(reward):
    broken = {"error": "down", "termination": "error"} if reward is None else {"reward": reward, "termination": "done"}
    return Trajectory(
        id="t", target="x", task="x", split="train", seed=0, trial=0, policy=Policy(base="b"), messages=(), **broken
    )


def test_half_informative_is_enough():
    found, rounds = _collect(lambda group: [0.0, 1.0, 1.0] if group % 2 else [0.5] * 3)
    assert rounds == [[100, 101, 102, 103]]
    assert [group.informative for group in found] == [False, True, False, True]


def test_rounding_makes_no_group_informative():
    found, rounds = _collect(lambda group: [1.0, 0.9999999999999999, 1.0] if group % 2 else [0.3, 0.1 + 0.2, 0.3])
    assert not any(group.informative for group in found) and len(rounds) == 4


def test_too_few_informative_groups_are_filled_up():
    found, rounds = _collect(lambda group: [0.0, 1.0, 1.0] if group in (101, 106) else [0.5] * 3)
    assert rounds == [[100, 101, 102, 103], [104, 105, 106]] and sum(group.informative for group in found) == 2


def test_recollection_ends():
    _, rounds = _collect(lambda group: [0.5] * 3)
    assert [len(numbers) for numbers in rounds] == [4, 4, 4, 4]
    _, rounds = _collect(lambda group: [0.5] * 3, budget=20)
    assert rounds == [[100, 101, 102, 103], [104, 105, 106]]  # 12, then 3 + 3 + 2


@pytest.mark.parametrize("reward,rounds", [(0.9, 1), (0.89, 4), (None, 4)])
def test_no_more_are_collected_of_what_is_learnt(reward, rounds):
    assert len(_collect(lambda group: [reward] * 3, stop_reward=0.9)[1]) == rounds


def test_late_groups_are_spent_and_not_waited_for():
    late = {101, 103}
    found = collect_groups(
        _start,
        lambda rollouts: [None if group in late and trial else _trajectory(trial % 2) for group, trial in rollouts],
        GRPOConfig(groups_per_step=4, num_generations=3, max_recollections=1),
        first_group=100, budget=None)  # fmt: skip
    assert [group.late for group in found] == [0, 3, 0, 3] and [group.size for group in found] == [3] * 4
    assert [len(group.rollouts) for group in found] == [3, 0, 3, 0]  # enough are informative


@pytest.mark.parametrize(("late", "rounds"), [({101}, [4, 3]), ({101, 103}, [4]), ({100, 101, 102}, [4])])
def test_late_groups_are_not_replaced(late, rounds):
    """What ends is constant."""
    sizes = []

    def run(rollouts):
        sizes.append(len(rollouts) // 2)
        return [None if group in late else _trajectory(0.5) for group, _ in rollouts]

    training = GRPOConfig(groups_per_step=4, num_generations=2, max_recollections=1)
    collect_groups(_start, run, training, first_group=100, budget=None)
    assert sizes == rounds


def test_broken_rollouts_are_no_reward_zero():
    found, _ = _collect(lambda group: [None, 1.0, 1.0], recollections=0)
    assert not any(group.informative for group in found)
    np.testing.assert_array_equal(found[0].rewards, [1.0, 1.0])
    found, _ = _collect(lambda group: [None, 1.0, None], recollections=0)
    assert not any(group.informative for group in found)


def test_empty_set_of_tasks_is_refused():
    with pytest.raises(UserError, match="g has an empty set of seeds"):
        _environment(())
