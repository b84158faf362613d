"""The gates on what a user says: no episode is a task of the target, and a router can learn from the prompts."""

from collections.abc import Callable, Sequence

from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.protocol import Prompting
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.disjoint import Openings

DISTINCT = 0.9  # least share of seeds whose episodes differ
NO_PROMPTS = "it has no prompts(seed, combined_with): the base as classifier will route, in place of a learned gate"

Factory = Callable[[], GeneratedEnvironment]


def prompt_gates(
    make: Factory, seeds: Sequence[int], heard: Sequence[Sequence[Message]], tasks: Openings
) -> tuple[Check, Check]:
    """``heard`` are the messages of the solved episode of each seed; ``tasks`` are the target's."""
    shown, check = _prompts(make, seeds)
    return _disjoint([*heard, *shown], tasks), check


def summarised(name: str, problems: Sequence[str], fine: str) -> Check:
    """A check that passed if there are no ``problems``; its detail is the first of them, or what was ``fine``."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Check(name=name, passed=not problems, detail=problems[0] + more if problems else fine)


def _disjoint(heard: Sequence[Sequence[Message]], tasks: Openings) -> Check:
    problems = [
        f"a user says {text[:80]!r}, as in a task of the target: draw from a source apart from both splits"
        for messages in heard
        for text in tasks.among(messages)
    ]
    left_out = f", {tasks.closed} could not be opened" if tasks.closed else ""
    return summarised("disjoint", problems, f"no user says what one of {tasks.opened} tasks begins with{left_out}")


def _prompts(make: Factory, seeds: Sequence[int]) -> tuple[list[Sequence[Message]], Check]:
    environment = make()
    if not isinstance(environment, Prompting):
        return [], Check(name="prompts", passed=True, detail=NO_PROMPTS)
    found = [environment.prompts(seed) for seed in seeds]
    again = make()
    assert isinstance(again, Prompting)
    problems = []
    for seed, prompts in zip(seeds, found, strict=True):
        if not prompts.exercised or prompts.exercised[-1].role != "user":
            problems.append(f"seed {seed}: the prompt that needs the capability does not end with the user")
        if prompts.exercised == prompts.routine:
            problems.append(f"seed {seed}: the prompt that needs the capability is the routine one")
        if again.prompts(seed) != prompts:
            problems.append(f"seed {seed}: other prompts the second time")
    distinct = len({prompts.exercised for prompts in found})
    if distinct < DISTINCT * len(seeds):
        problems.append(f"{distinct} different prompts from {len(seeds)} seeds")
    shown = [prompt for prompts in found for prompt in (prompts.exercised, prompts.routine)]
    routine = "" if all(prompts.routine for prompts in found) else ", none of them routine"
    return list(shown), summarised("prompts", problems, f"{distinct} different prompts{routine}")
