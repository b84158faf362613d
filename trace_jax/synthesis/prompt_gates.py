"""The gates on what a user says: no episode is a task of the target, and a router can learn from the prompts."""

from collections.abc import Callable, Mapping, Sequence

from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.protocol import Prompting
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.disjoint import Conversations

DISTINCT = 0.9  # least share of seeds whose episodes differ
NO_PROMPTS = "it has no prompts(seed, combined_with): the base as classifier will route, in place of a learned gate"

Factory = Callable[[], GeneratedEnvironment]


def prompt_gates(make: Factory, heard: Mapping[int, Sequence[Message]], tasks: Conversations) -> tuple[Check, Check]:
    """``heard`` are the messages of the solved episode of each seed; ``tasks`` are the target's."""
    return _disjoint(heard, tasks), _prompts(make, tuple(heard))


def summarised(name: str, problems: Sequence[str], fine: str) -> Check:
    """A check that passed if there are no ``problems``; its detail is the first of them, or what was ``fine``."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Check(name=name, passed=not problems, detail=problems[0] + more if problems else fine)


def _disjoint(heard: Mapping[int, Sequence[Message]], tasks: Conversations) -> Check:
    problems = [
        f"seed {seed}: the user says the same as in a task of the target: draw from a source apart from both splits"
        for seed, messages in heard.items()
        if messages in tasks
    ]
    left_out = f"; {tasks.broken} could not be played" if tasks.broken else ""
    return summarised("disjoint", problems, f"no conversation is one of {tasks.tasks} tasks of the target{left_out}")


def _prompts(make: Factory, seeds: Sequence[int]) -> Check:
    environment = make()
    if not isinstance(environment, Prompting):
        return Check(name="prompts", passed=True, detail=NO_PROMPTS)
    again = make()
    assert isinstance(again, Prompting)
    found = [environment.prompts(seed, again) for seed in seeds]
    problems = []
    for seed, prompts in zip(seeds, found, strict=True):
        if not prompts.exercised or prompts.exercised[-1].role != "user":
            problems.append(f"seed {seed}: the prompt that needs the capability does not end with the user")
        if prompts.combined and prompts.combined[-1].role != "user":
            problems.append(f"seed {seed}: the prompt that is combined with another does not end with the user")
        if again.prompts(seed, environment) != prompts:
            problems.append(f"seed {seed}: other prompts the second time")
    distinct = len({prompts.exercised for prompts in found})
    # The same request may need the capability in one state and not in another: then the gate can only guess.
    alike = sum(prompts.exercised == prompts.routine for prompts in found)
    routine = f"{alike} as routine ones" if any(prompts.routine for prompts in found) else "no routine ones"
    return summarised("prompts", problems, f"{distinct} different of {len(seeds)}, {routine}")
