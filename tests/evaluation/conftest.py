"""A whole run's data, synthetic but complete."""

import numpy as np
import pytest
from adapter_files import FILES

from evaluation.methods import compare, method_result
from evaluation.report_data import BudgetPoint, Confusion, ReportData
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Candidate, CapabilityReport, Interval
from trace_jax.contract.environment import Calibration, Design, EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.routing import Route, RouteTable
from trace_jax.contract.trajectory import Check

NAMES = ("verify_before_acting", "complete_all_steps", "compute_over_values", "choose_under_constraints")
METHODS = {
    "base": (0.28, 0),
    "grpo_target": (0.36, 5120),
    "best_single": (0.41, 2100),
    "trace_routed": (0.55, 5120),
    "oracle_routed": (0.6, 5120),
    "random_routed": (0.33, 5120),
}


def around(mean: float, half: float) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half)


@pytest.fixture(scope="session")
def evaluation() -> EvaluationReport:
    rng = np.random.default_rng(0)
    tasks = [str(t) for t in range(80)]
    results = []
    for temperature, trials in ((0.0, 1), (1.0, 4)):
        for name, (rate, spent) in METHODS.items():
            draws = rng.random((80, trials)) < rate - 0.05 * temperature
            rewards = {task: tuple(float(x) for x in row) for task, row in zip(tasks, draws, strict=True)}
            if (name, temperature) == ("random_routed", 1.0):
                rewards |= {task: (None, *rewards[task][1:]) for task in tasks[:30]}
            results.append(method_result(name, temperature, spent, rewards))
    return EvaluationReport(
        target="helpdesk",
        split="held_out",
        tasks=tuple(tasks),
        trials=4,
        seed=0,
        methods=tuple(results),
        comparisons=compare(results, ["base", "grpo_target"]),
    )


def adapter(name: str, *capabilities: str) -> AdapterManifest:
    return AdapterManifest(
        name=name,
        capabilities=capabilities,
        environments=(f"{name}-desk",),
        base="0123456789abcdef",
        rank=8,
        alpha=16.0,
        target_modules=("q_proj",),
        peft="peft",
        files=FILES,
        checkpoint="checkpoints",
        steps=25,
        rollouts=1200,
        seed=0,
        metrics={"reward/mean": 0.91},
    )


@pytest.fixture(scope="session")
def data(evaluation) -> ReportData:
    rng = np.random.default_rng(1)
    reports = [
        CapabilityReport(
            capability=Candidate(name=name, description=name),
            distractor=i >= 4,
            runs=(),
            runs_passed=10 if i < 4 else 0,
            coverage=around(0.5 - 0.08 * i, 0.06),
            delta=around(0.6 - 0.11 * i, 0.1),
            agreement=0.8 if i != 5 else None,
            support=40 - 6 * i,
            p_value=0.001 if i < 4 else 0.4,
            selected=i < 4,
            reason="Cov and Δ over their thresholds in 10 of 10 runs" if i < 4 else "Δ below 0.20 in 10 of 10 runs",
        )
        for i, name in enumerate((*NAMES, "polite_tone", "well_formed_calls"))
    ]
    calibration = Calibration(
        groups=8,
        group_size=8,
        broken=0,
        mean_reward=0.41,
        reward_std=0.32,
        success_rate=0.3,
        all_success_groups=0.05,
        all_zero_groups=0.1,
        constant_groups=0.2,
        pass_at_k={"1": 0.3, "4": 0.66, "8": 0.8},
    )
    environments = [
        EnvironmentManifest(
            name=f"{name}_desk",
            capability=name,
            target="helpdesk",
            designer="rules",
            design=Design(entry_point="a:B", parameters={}),
            gates=(Check(name="deterministic", passed=True), Check(name="oracle", passed=True)),
            calibration=calibration,
            rollouts=64,
        )
        for name in NAMES
    ]
    adapters = [adapter(f"{name}_1", name) for name in NAMES] + [adapter("grpo_target")]
    curve = 1 - 0.6 * np.exp(-np.arange(1, 26) / 8)
    metrics = {
        a.name: {
            s + 1: {"reward/mean": float(np.clip(c + rng.normal() * 0.05, 0, 1)), "groups/live": float(1.1 - c)}
            for s, c in enumerate(curve - 0.08 * i)
        }
        for i, a in enumerate(adapters)
    }
    points = [
        BudgetPoint(method=name, temperature=t, rollouts=n, pass_rate=around(0.26 + gain * n / 5120, 0.07))
        for name, gain in (("trace_routed", 0.28), ("grpo_target", 0.09))
        for t in (0.0, 1.0)
        for n in (0, 1280, 2560, 3840, 5120)
    ]
    choices = ("", *(a.name for a in adapters[:-1]))
    counts = tuple(tuple(int(v) for v in rng.integers(0, 3, size=5) + 14 * np.eye(5, dtype=int)[i]) for i in range(5))
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in choices[1:])
    return ReportData(
        title="TRACE on helpdesk",
        evaluation=evaluation,
        analysis=AnalysisReport(capabilities=tuple(reports), passed=70, failed=166, broken=4),
        environments=tuple(environments),
        adapters=tuple(adapters),
        metrics=metrics,
        table=RouteTable(base="0123456789abcdef", router="gate", routes=routes, temperature=1.2),
        confusion=Confusion(choices=choices, counts=counts),
        stage_seconds={
            "roll_out": 31.0,
            "analyse": 2.5,
            "synthesise": 40.2,
            "train": 171.0,
            "route": 9.0,
            "evaluate": 72.0,
        },
        budget=tuple(points),
        notes={"device": "2 CPU cores"},
    )
