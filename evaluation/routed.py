"""Routes the tasks of a target before they are evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.report_data import Confusion
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.trajectory import Split
from trace_jax.environments.protocol import Target, Task
from trace_jax.errors import UserError
from trace_jax.models.lora import LoRA
from trace_jax.rollout.environment_calls import one_line
from trace_jax.routing.merge import materialise
from trace_jax.routing.router import BASE, Router, RouteRequest


@dataclass(frozen=True)
class Routing:
    """The adapter of each task (None is the base), and the merged adapters among them."""

    adapter: Mapping[Task, str | None]
    merged: Mapping[str, LoRA]


def route_tasks(router: Router, target: Target, split: Split, tasks: Sequence[Task]) -> dict[Task, RouteDecision]:
    """The router's decision on the first messages of each task. The id of a task names its conversation.

    Raises UserError, with target and task, if the environment cannot open the task.
    """
    requests = []
    for task in tasks:
        try:
            environment = target.environment(split)
            requests.append(RouteRequest(str(task), environment.reset(task).messages, environment.tools))
        except Exception as error:  # an environment may raise anything
            raise UserError(
                f"target {target.name!r}: {split} task {task} cannot be opened to route it ({one_line(error)}): fix "
                "its environment, or leave the task out"
            ) from error
    return dict(zip(tasks, router.decide_batch(requests), strict=True))


def assign(decisions: Mapping[Task, RouteDecision], adapters: Mapping[str, LoRA]) -> Routing:
    """The adapter of each task. The name of a merge consists of its parts and weights, so equal merges share a name."""
    names: dict[Task, str | None] = {}
    merged: dict[str, LoRA] = {}
    for task, decision in decisions.items():
        parts = decision.adapters
        if not parts:
            names[task] = None
        elif list(parts.values()) == [1.0]:
            names[task] = next(iter(parts))
        else:
            name = "+".join(f"{weight:.6f}*{part}" for part, weight in sorted(parts.items()))
            lora = merged[name] if name in merged else materialise(decision, adapters)
            assert lora is not None
            names[task], merged[name] = name, lora
    return Routing(names, merged)


def confusion_of(
    decisions: Mapping[Task, RouteDecision], truth: Mapping[Task, str], choices: Sequence[str]
) -> Confusion:
    """Counts of tasks by the adapter they belong to (``truth[task]``, ``""`` is the base) and the adapter chosen.

    The choice of a merge is its part with the largest weight.
    """
    counts = np.zeros((len(choices), len(choices)), np.int64)
    for task, decision in decisions.items():
        sent = max(decision.adapters, key=lambda name: decision.adapters[name]) if decision.adapters else BASE
        counts[list(choices).index(truth[task]), list(choices).index(sent)] += 1
    return Confusion(choices=tuple(choices), counts=tuple(tuple(row) for row in counts.tolist()))
