"""What the report shows of TRACE on its way: the first adapters alone, from episodes that were played anyway."""

import pytest

from evaluation.held_out import BASE_METHOD, ROUTED, _partial
from evaluation.methods import method_result
from evaluation.routed import Routing
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport

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


def test_the_first_adapters_serve_their_own_tasks_and_the_base_the_rest(report):
    adapters = [adapter("a", 100), adapter("b", 200), adapter("c", 300)]
    routing = Routing({0: "a", 1: "b", 2: "c", 3: None}, {})
    one, two = _partial(report, routing, adapters, SPENT, 1.0)
    assert [task for task, row in one.rewards.items() if row == (1.0,)] == ["0"]
    assert [task for task, row in two.rewards.items() if row == (1.0,)] == ["0", "1"]
    assert (one.rollouts_spent, two.rollouts_spent) == (SPENT - 500, SPENT - 300)


def test_merged_adapters_have_no_partial_points(report):
    name = "0.500000*a+0.500000*b"
    routing = Routing({0: "a", 1: "b", 2: name, 3: None}, {name: object()})
    assert _partial(report, routing, [adapter("a", 100), adapter("b", 200)], SPENT, 1.0) == []
