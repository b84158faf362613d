"""Goal mutants: one fact of the goal is changed on the same state. The old solution must lose, and the new one win."""

from collections.abc import Iterator, Mapping, Sequence

from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.protocol import Mutable, Observation
from trace_jax.synthesis.canary_gates import of_another_seed, spelled
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.probes import Script, ScriptedEpisode, play, sending, solve
from trace_jax.synthesis.prompt_gates import Factory, summarised

NO_METHOD = "it has no mutant(seed)"
NO_MUTANT = "no seed has a mutant"


class _NoMutant(Exception):
    """The seed has no mutant."""


def goal_mutants(make: Factory, solved: Mapping[int, ScriptedEpisode]) -> Check:
    """``solved`` are the solved episodes by seed.

    A mutant begins in the same state. What the agent sees tells that the goal is another one: else no agent could know
    it. The solution of the unchanged goal earns less than 1, that of the changed goal earns 1. An environment without
    mutants, or with none on these seeds, is tried with the solutions of other seeds in their place.
    """
    problems, played = [], 0
    mutable = isinstance(make(), Mutable)
    for seed, episode in solved.items() if mutable else ():
        try:
            found = list(_faults(make, seed, episode))
        except _NoMutant:
            continue
        played += 1
        problems += [f"seed {seed}: with another goal on the same state {fault}" for fault in found]
    if played:
        fine = f"{played} of {len(solved)} goals were changed: the old solution loses, the new one earns 1"
        return summarised("goal_mutants", problems, fine)
    without, problems = NO_MUTANT if mutable else NO_METHOD, []
    for seed in solved:
        for what, messages in of_another_seed(seed, solved):
            other = play(make(), seed, sending(messages))
            if other.reward >= 1.0 and other.state != solved[seed].state:
                problems.append(f"seed {seed}: {what}, and it earns {other.reward:g}")
    return summarised("goal_mutants", problems, f"{without}: the solutions of other seeds lose in its place")


def _faults(make: Factory, seed: int, before: ScriptedEpisode) -> Iterator[str]:
    """What is wrong with the mutant of a seed whose solved episode is ``before``. Raises _NoMutant if there is none."""
    new, old = _played(make, seed, solve), _played(make, seed, sending(before.sent))
    if new.initial != before.initial:
        yield "the episode begins in another state"
    if old.heard == before.heard and new.heard == play(make(), seed, sending(new.sent)).heard:
        yield f"all that the agent sees is the same, yet now the solution is {_spelled(new.sent)}"
    if new.reward != 1.0:
        yield f"the new solution earns {new.reward:g}, not 1: {_spelled(new.sent)}"
    if old.reward >= 1.0 and old.state != new.state:
        yield f"the old solution still earns {old.reward:g}: {_spelled(old.sent)}; the new one is {_spelled(new.sent)}"


def _played(make: Factory, seed: int, script: Script) -> ScriptedEpisode:
    return play(make(), seed, script, begin=_mutant)


def _mutant(environment: GeneratedEnvironment, seed: int) -> Observation:
    assert isinstance(environment, Mutable)
    observation = environment.mutant(seed)
    if observation is None:
        raise _NoMutant
    return observation


def _spelled(messages: Sequence[Message]) -> str:
    """Calls and replies, as feedback shows them."""
    steps = [spelled(call) for message in messages for call in message.tool_calls]
    return "; ".join([*steps, *(message.content or "" for message in messages if not message.tool_calls)])
