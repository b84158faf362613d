"""The validity gates: what an environment must pass before a policy is trained in it.

``run_gates`` runs them in this process; ``isolated.run_isolated`` in another one with a time limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.calls import call_error
from trace_jax.environments.results import result_fits
from trace_jax.synthesis.canary_gates import canaries, spelled
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.disjoint import NO_TASKS, Conversations
from trace_jax.synthesis.hint_gates import hint
from trace_jax.synthesis.leak_gates import no_leak
from trace_jax.synthesis.mutant_gates import goal_mutants
from trace_jax.synthesis.novelty_gates import novel
from trace_jax.synthesis.probes import (
    Script,
    ScriptedEpisode,
    WrongChange,
    always,
    at_random,
    calling,
    look_around,
    play,
    solve,
)
from trace_jax.synthesis.prompt_gates import DISTINCT, Factory, prompt_gates, summarised
from trace_jax.synthesis.search_gates import reward_search
from trace_jax.synthesis.shape_gates import shapes_of_target

TRIVIAL = 0.05  # most that doing nothing and refusing may earn on average
CHANCE = 0.1  # most that calling tools at random may earn on average: a few tools and ids are sometimes hit
STREAMS = 16  # of random calls for each seed


def run_gates(
    make: Factory,
    tools: tuple[Tool, ...],
    results: Mapping[str, dict[str, Any]],
    seeds: Sequence[int],
    tasks: Conversations = NO_TASKS,
) -> tuple[Check, ...]:
    """All gates, each a check with what was found. ``tools``, ``results`` and ``tasks`` are the target's.

    An error of the environment is not caught: it tells its author more than a failed gate would.
    """
    solved = {seed: play(make(), seed, solve) for seed in seeds}
    around = {seed: play(make(), seed, look_around(np.random.default_rng([1, seed]))) for seed in seeds}
    return (
        _deterministic(make, solved),
        _seeds_differ(solved),
        _tools_of_target(make(), tools),
        _solution_earns_one(solved),
        _earns_nothing("do_nothing", make, seeds, always("Done.")),
        _earns_nothing("always_refuse", make, seeds, always("I cannot do that.")),
        _random(make, seeds),
        _wrong_change_costs(make, seeds),
        _bad_calls_answered(make, seeds),
        _results_of_target(results, [*solved.items(), *around.items()]),
        no_leak(solved, around, [tool.name for tool in tools]),
        *prompt_gates(make, {seed: episode.heard for seed, episode in solved.items()}, tasks),
        canaries(make, solved),
        reward_search(make, seeds),
        goal_mutants(make, solved),
        novel(solved, tasks),
        shapes_of_target(solved, tasks.shapes),
        hint(make, solved),
    )


def fingerprints(make: Factory, seeds: Sequence[int]) -> list[str]:
    """The fingerprint of each solved episode. It must be the same in every process."""
    return [play(make(), seed, solve).fingerprint() for seed in seeds]


def _deterministic(make: Factory, solved: dict[int, ScriptedEpisode]) -> Check:
    again = make()  # one environment for all seeds, in another order: nothing may be carried over
    differ = [
        f"seed {seed} gave another episode the second time"
        for seed in reversed(solved)
        if play(again, seed, solve).fingerprint() != solved[seed].fingerprint()
    ][::-1]
    return summarised("deterministic", differ, f"{len(solved)} seeds played twice alike")


def _seeds_differ(solved: dict[int, ScriptedEpisode]) -> Check:
    seeds: dict[str, list[int]] = {}
    for seed, episode in solved.items():
        seeds.setdefault(episode.fingerprint(), []).append(seed)
    detail = f"{len(seeds)} different episodes from {len(solved)} seeds"
    alike = next((each for each in seeds.values() if len(each) > 1), [])
    problems = (
        [f"seeds {alike[0]} and {alike[1]} are the same: {detail}"] if len(seeds) < DISTINCT * len(solved) else []
    )
    return summarised("seeds_differ", problems, detail)


def _tools_of_target(environment: GeneratedEnvironment, tools: tuple[Tool, ...]) -> Check:
    known = {tool.name: tool for tool in tools}
    problems = [f"{tool.name} is no tool of the target" for tool in environment.tools if tool.name not in known]
    problems += [
        f"{tool.name} differs from the target's"
        for tool in environment.tools
        if tool.name in known and tool.offered() != known[tool.name].offered()
    ]
    if not environment.tools:
        problems.append("no tools")
    return summarised("tools_of_target", problems, ", ".join(tool.name for tool in environment.tools))


def _solution_earns_one(solved: dict[int, ScriptedEpisode]) -> Check:
    problems = [
        f"seed {seed}: the solution earns {episode.reward:g}{'' if episode.done else ' and does not end the episode'}"
        for seed, episode in solved.items()
        if episode.reward != 1.0 or not episode.done
    ]
    return summarised("solution_earns_1", problems, f"on {len(solved)} seeds")


def _earns_nothing(name: str, make: Factory, seeds: Sequence[int], script: Script) -> Check:
    return _at_most(name, TRIVIAL, [(seed, play(make(), seed, script)) for seed in seeds])


def _random(make: Factory, seeds: Sequence[int]) -> Check:
    streams = [(seed, np.random.default_rng([2, seed, stream])) for seed in seeds for stream in range(STREAMS)]
    return _at_most("random", CHANCE, [(seed, play(make(), seed, at_random(rng))) for seed, rng in streams])


def _at_most(name: str, most: float, episodes: list[tuple[int, ScriptedEpisode]]) -> Check:
    mean = float(np.mean([episode.reward for _, episode in episodes]))
    detail = f"mean reward {mean:.3f} in {len(episodes)} episodes, at most {most} is allowed"
    if mean <= most:
        return summarised(name, [], detail)
    seed, paid = next((seed, episode) for seed, episode in episodes if episode.reward > most)
    sent = "; ".join([*(spelled(exchange.call) for exchange in paid.exchanges), repr(paid.sent[-1].content)])
    return summarised(name, [f"{detail}; on seed {seed} this earns {paid.reward:g}: {sent}"], detail)


def _wrong_change_costs(make: Factory, seeds: Sequence[int]) -> Check:
    problems, changed = [], 0
    for seed in seeds:
        script = WrongChange(np.random.default_rng([3, seed]))
        episode = play(make(), seed, script)
        extra = [exchange for exchange in episode.exchanges if exchange.changed and exchange.call in script.calls]
        changed += bool(extra)
        if extra and episode.reward == 1.0:
            problems.append(f"seed {seed}: {extra[0].call.name} {extra[0].call.arguments} on top costs nothing")
    if not changed:
        problems.append("no call was found that changes the state")
    return summarised("wrong_change_costs", problems, f"on {changed} of {len(seeds)} seeds")


def _bad_calls_answered(make: Factory, seeds: Sequence[int]) -> Check:
    environment = make()
    some = (
        ToolCall(id="a", name="no_such_tool", arguments={}),
        ToolCall(id="b", name=environment.tools[0].name, arguments=None, raw_arguments="{"),
        ToolCall(id="c", name=environment.tools[0].name, arguments={"no_such_argument": 1}),
    )
    bad = [call for call in some if call_error(call, environment.tools)]  # a schema may allow any argument

    def script(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        yield calling(*bad)
        yield from environment.solution()

    problems = []
    for seed in seeds:
        episode = play(make(), seed, script)
        answers = [exchange.result for exchange in episode.exchanges[: len(bad)]]
        with_error = [answer.tool_call_id for answer in answers if "error" in (answer.content or "").lower()]
        if with_error != [call.id for call in bad]:
            wanted = ", ".join(call.id for call in bad)
            problems.append(f"seed {seed}: of calls {wanted} only {with_error} got an error")
    return summarised("bad_calls_answered", problems, "unknown tools, malformed and wrong arguments get an error each")


def _results_of_target(results: Mapping[str, dict[str, Any]], episodes: Sequence[tuple[int, ScriptedEpisode]]) -> Check:
    validators = {name: Draft202012Validator(schema) for name, schema in results.items()}
    problems, count = [], 0
    for seed, exchange in ((seed, exchange) for seed, episode in episodes for exchange in episode.exchanges):
        name, content = exchange.call.name, exchange.result.content
        count += 1
        fits = name in validators and result_fits(validators[name], content)
        if not fits:
            problems.append(f"seed {seed}: {name} answered {content!r}, which the target's does not")
    return summarised("results_of_target", problems, f"{count} results have the target's shape")
