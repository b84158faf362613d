"""What the report shows of TRACE on its way: the first adapters alone, from episodes that were played anyway."""

import pytest
from adapter_files import FILES

from evaluation.held_out import BASE_METHOD, ROUTED, _partial
from evaluation.methods import method_result
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.routing import RouteDecision

SPENT = 1000


def adapter(name: str, rollouts: int) -> AdapterManifest:
    return AdapterManifest(
        name=name,
        capabilities=(name,),
        environments=(name,),
        base="0123456789abcdef",
        rank=8,
        alpha=16.0,
        target_modules=("q_proj",),
        peft="peft",
        files=FILES,
        checkpoint="checkpoints",
        steps=1,
        rollouts=rollouts,
        seed=0,
    )


@pytest.fixture
def report() -> EvaluationReport:
    """Four tasks that only a routed adapter solves."""
    tasks = tuple("0123")
    rows = [
        method_result(name, 1.0, spent, {task: (reward,) for task in tasks})
        for name, spent, reward in ((BASE_METHOD, 0, 0.0), (ROUTED, SPENT, 1.0))
    ]
    return EvaluationReport(target="desk", split="held_out", tasks=tasks, trials=1, seed=0, methods=tuple(rows))


def decisions(*adapters):
    """Where tasks 0, 1, … go: each to the adapters of the letters of its word."""
    return {
        task: RouteDecision(conversation=str(task), router="gate", weights={}, adapters=dict.fromkeys(letters, 1.0))
        for task, letters in enumerate(adapters)
    }


def test_the_first_adapters_serve_their_own_tasks_and_the_base_the_rest(report):
    adapters = [adapter("a", 100), adapter("b", 200), adapter("c", 300)]
    first, two = _partial(report, decisions("a", "b", "c", ""), adapters, SPENT, 1.0)
    assert [task for task, row in first.rewards.items() if row == (1.0,)] == ["0", "3"]  # the base serves task 3
    assert [task for task, row in two.rewards.items() if row == (1.0,)] == ["0", "1", "3"]
    assert (first.rollouts_spent, two.rollouts_spent) == (SPENT - 500, SPENT - 300)


def test_merged_adapters_serve_when_all_of_them_are_trained(report):
    adapters = [adapter("a", 100), adapter("b", 200), adapter("c", 300)]
    first, two = _partial(report, decisions("a", "ab", "bc", "c"), adapters, SPENT, 1.0)
    assert [task for task, row in first.rewards.items() if row == (1.0,)] == ["0"]
    assert [task for task, row in two.rewards.items() if row == (1.0,)] == ["0", "1"]
